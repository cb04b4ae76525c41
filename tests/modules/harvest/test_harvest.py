"""Whole harvests: by the published command, over gRPC, through a worker's death, and with all that can be wrong."""

from __future__ import annotations

import asyncio
import json
import signal
import sqlite3
import time
import uuid
from collections import Counter
from pathlib import Path
from typing import Any

import grpc
import httpx
import psutil
import pytest
from contextunity.gen.contextunity.harvest import v1 as harvest
from contextunity.gen.contextunity.harvest.v1 import FeedCursor, HarvestRequest, PageRef, harvest_temporal
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from temporalio.client import Client, WorkflowFailureError, WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError

from contextunity.modules.harvest.catalogue import Catalogue
from contextunity.modules.harvest.feed_server import FeedServer
from contextunity.modules.harvest.feeds import FeedSource, open_feed, read_page
from contextunity.modules.harvest.sample import write_sample
from contextunity.modules.harvest.transform import transform_page
from contextunity.worker.embedded import EmbeddedServer, usual_or_free_port
from contextunity.worker.temporal.errors import INVALID_INPUT
from contextunity.worker.temporal.plugin import ContextWorkerPlugin

_SNOWDEVIL = Path(__file__).resolve().parents[4] / "shared" / "data" / "snowdevil.csv"


def _tenant() -> str:
    """The tests of a process share a Temporal server, so each has a tenant, and thereby workflow ids, of its own."""
    return f"tenant-{uuid.uuid4().hex[:8]}"


def _plain_harvest(feed: Path, database: Path) -> Catalogue:
    """What a harvest should give, by the same functions without Temporal, processes or interruptions."""
    catalogue = Catalogue.open(f"sqlite:///{database}")

    async def read() -> None:
        source = FeedSource(supplier_code="s", url=feed.as_uri(), format=None, currency_code="USD")
        async with httpx.AsyncClient() as client:
            opened, cursor = await open_feed(client, source, spool_folder=database.parent)
            for page in range(1_000_000):
                fetched = await read_page(client, opened, cursor or FeedCursor(), 100, spool_folder=database.parent)
                ref = PageRef(tenant_id="t", supplier_code="s", harvest_id="h", page=page)
                catalogue.put_raw_page(ref, fetched.page)
                catalogue.put_product_page(ref, transform_page(fetched.page, currency_code="USD"))
                catalogue.sync_page(ref)
                cursor = fetched.next_cursor
                if fetched.end_of_feed:
                    return

    asyncio.run(read())
    return catalogue


def _rows(url: str, tenant: str, supplier: str) -> dict[str, str]:
    """Content hash by SKU, as the database has it."""
    with sqlite3.connect(url.removeprefix("sqlite:///")) as connection:
        query = "SELECT sku, content_hash FROM products WHERE tenant_id = ? AND supplier_code = ?"
        rows = connection.execute(query, (tenant, supplier)).fetchall()
    connection.close()
    return dict(rows)


def _numbers(result: dict[str, Any]) -> dict[str, int]:
    return {key: int(value) for key, value in result["counts"].items()}


def test_the_main_job_runs_ends_and_leaves_nothing_running(spawn: Any, tmp_path: Path) -> None:
    (tmp_path / "contextworker.toml").write_text("[modules.harvest]\nsample_products = 300\nkeep_harvests = 1\n")
    before = {process.pid for process in psutil.process_iter() if process.name().startswith("temporal")}
    first = spawn("-m", "contextunity.modules.harvest")
    assert first.wait() == 0, first.output
    catalogue = Catalogue.open(f"sqlite:///{tmp_path}/.contextworker/harvest/catalogue.db")
    total = catalogue.count("my_project", "camping-trade")
    sample = catalogue.sample("my_project", "camping-trade", 1)
    catalogue.close()
    assert total > 300
    assert f"{total:,} created, 0 changed, 0 unchanged" in first.output
    assert sample[0].sku in first.output
    for told in ("100%", ".contextworker/harvest/catalogue.db", "http://127.0.0.1:", "contextunity.worker dev"):
        assert told in first.output
    assert f"Enriched: {total:,} products, 0 failed" in first.output
    assert "sleeping-bags/" in first.output
    assert "Traceback" not in first.output
    assert "Warning" not in first.output

    second = spawn("-m", "contextunity.modules.harvest")
    assert second.wait() == 0, second.output
    assert f"0 created, 0 changed, {total:,} unchanged" in second.output
    assert "Nothing has changed since the last enrichment" in second.output
    for told in ("has not changed since the last harvest (304 Not Modified)", "harvest --force", sample[0].sku):
        assert told in second.output
    with sqlite3.connect(tmp_path / ".contextworker/harvest/catalogue.db") as connection:
        kept = "SELECT (SELECT count(*) FROM harvests), (SELECT count(DISTINCT harvest_id) FROM harvest_pages)"
        assert connection.execute(kept).fetchone() == (2, 1)
    connection.close()
    after = {process.pid for process in psutil.process_iter() if process.name().startswith("temporal")}
    # Other processes that run tests have servers of their own; these two runs added none that stays.
    assert not [
        process
        for process in psutil.process_iter(["cmdline"])
        if process.pid in after - before and str(tmp_path) in " ".join(process.info["cmdline"] or [])
    ]


def test_a_killed_worker_loses_and_repeats_nothing(house: Any, tmp_path: Path) -> None:
    feed, tenant = tmp_path / "feed.csv", _tenant()
    write_sample(feed, products=1200)
    with FeedServer(feed, bytes_per_second=400_000) as server:
        house.configure(
            f'[modules.harvest.suppliers.alpine]\nurl = "{server.url()}"\nallow_private = true\n'
            'format = "shopify_csv"\npage_size = 40\n'
        )
        house.serve()
        first = house.work()
        workflow_id = house.start(supplier_code="alpine", tenant_id=tenant)
        middle = house.wait_until(workflow_id, lambda status: _synced(status) > 0)
        first.send(signal.SIGKILL)
        first.wait()
        assert middle["status"] == "running"
        house.work()
        ended = house.wait(workflow_id)
    assert ended["status"] == "completed", ended
    expected = _plain_harvest(feed, tmp_path / "plain" / "expected.db")
    totals = expected.counts("t", "s", "h")
    counts = _numbers(ended["result"])
    assert counts["fetched"] == totals.rows
    assert (counts["created"], counts["rejected"]) == (totals.created, totals.rejected)
    assert counts["created"] + counts["rejected"] == counts["fetched"]
    assert _rows(house.catalogue_url, tenant, "alpine") == _rows(f"sqlite:///{tmp_path}/plain/expected.db", "t", "s")
    expected.close()


def _synced(status: dict[str, Any]) -> int:
    return int(status.get("progress", {}).get("counts", {}).get("synced", 0))


def test_what_the_feed_no_longer_lists_is_marked_and_what_changed_is_counted(house: Any, tmp_path: Path) -> None:
    header = b"id\ttitle\tprice\tdescription\tlink\timage_link\tavailability\n"
    line = "{0}\tTent {0}\t{1} EUR\tA tent\thttps://x.example/{0}\thttps://x.example/{0}.jpg\tin stock\n"
    feed, tenant = tmp_path / "feed.tsv", _tenant()
    feed.write_bytes(header + "".join(line.format(f"T{n}", 10 + n) for n in range(10)).encode())
    house.configure(f'[modules.harvest.suppliers.alpine]\nurl = "{feed.as_uri()}"\npage_size = 3\n')
    house.serve()
    house.work()
    first = house.wait(house.start(supplier_code="alpine", tenant_id=tenant))
    assert _numbers(first["result"]) == {"pages": 4, "fetched": 10, "synced": 10, "created": 10}
    kept = [line.format(f"T{n}", 10 + n) for n in range(2, 9)] + [line.format("T9", "99.99"), line.format("N1", 5)]
    feed.write_bytes(header + "".join(kept).encode())
    second = house.wait(house.start(supplier_code="alpine", tenant_id=tenant))
    assert int(second["result"]["delisted"]) == 2
    counts = _numbers(second["result"])
    assert (counts["created"], counts["changed"], counts["unchanged"]) == (1, 1, 7)
    with Catalogue.open(house.catalogue_url) as catalogue:
        assert catalogue.count(tenant, "alpine") == 11
        assert catalogue.count(tenant, "alpine", delisted=True) == 2
        changed = catalogue.get(tenant, "alpine", "T9")
    assert changed is not None
    assert changed.price is not None
    assert (changed.price.units, changed.price.nanos, changed.price.currency_code) == (99, 990_000_000, "EUR")


def test_a_trial_run_stops_early_and_marks_nothing(house: Any) -> None:
    tenant = _tenant()
    house.configure("[modules.harvest]\nsample_products = 100\n")
    house.serve()
    house.work()
    whole = house.wait(house.start(supplier_code="camping-trade", tenant_id=tenant))
    trial = house.wait(house.start(supplier_code="camping-trade", tenant_id=tenant, max_products=30, page_size=20))
    assert trial["status"] == "completed"
    counts = _numbers(trial["result"])
    assert counts["pages"] == 2
    assert 30 <= counts["fetched"] < _numbers(whole["result"])["fetched"]
    assert "delisted" not in trial["result"]


def test_a_long_harvest_continues_as_new_and_loses_nothing(house: Any) -> None:
    tenant, other = _tenant(), _tenant()
    house.configure("[modules.harvest]\nsample_products = 160\n")
    house.serve()
    house.work()
    payload = {"workflow_type": "harvest", "supplier_code": "camping-trade", "tenant_id": tenant, "page_size": 1}
    started = house.call("StartWorkflow", payload)
    ended = house.wait(started["workflow_id"])
    assert ended["status"] == "completed", ended
    assert ended["run_id"] != started["run_id"]
    assert ended["result"]["harvest_id"] == started["run_id"]
    at_once = house.wait(house.start(supplier_code="camping-trade", tenant_id=other))
    long, short = _numbers(ended["result"]), _numbers(at_once["result"])
    assert long.pop("pages") > 150 > short.pop("pages")
    assert long == short
    assert _rows(house.catalogue_url, tenant, "camping-trade") == _rows(house.catalogue_url, other, "camping-trade")


def test_the_whole_feed_in_small_pages_is_complete_over_several_runs(house: Any) -> None:
    tenant = _tenant()
    house.configure("[modules.harvest]\nsample_products = 3000\n")
    house.serve()
    house.work()
    payload = {"workflow_type": "harvest", "supplier_code": "camping-trade", "tenant_id": tenant, "page_size": 18}
    started = house.call("StartWorkflow", payload)
    ended = house.wait(started["workflow_id"])
    assert ended["status"] == "completed", ended
    assert ended["run_id"] != started["run_id"]
    counts = _numbers(ended["result"])
    assert (counts["pages"], counts["fetched"], counts["synced"], counts["rejected"]) == (167, 6519, 6470, 49)


async def _steer(address: str, tenant: str, server: FeedServer) -> harvest.HarvestResponse:
    client = await Client.connect(address, plugins=[ContextWorkerPlugin()])
    request = HarvestRequest(tenant_id=tenant, supplier_code="alpine", page_size=10)
    handle = await harvest_temporal.HarvestServiceClient(client).start_harvest(request)
    await handle.pause()
    while (await handle.get_progress()).stage is not harvest.HarvestStage.PAUSED:
        pass  # Each question is a round trip to the worker.
    with pytest.raises(WorkflowUpdateFailedError) as caught:
        await handle.set_page_size(harvest.SetPageSizeRequest(page_size=1001))
    assert isinstance(caught.value.cause, ApplicationError)
    assert "page_size: must be greater than or equal to 1 and less than or equal to 1000" in caught.value.cause.message
    previous = await handle.set_page_size(harvest.SetPageSizeRequest(page_size=25))
    assert previous.previous_page_size == 10
    assert (await handle.get_progress()).page_size == 25
    server.bytes_per_second = None
    await handle.resume()
    return await handle.result()


def test_a_harvest_can_be_paused_resumed_and_given_another_page_size(
    house: Any, temporal_server: EmbeddedServer, tmp_path: Path
) -> None:
    feed, tenant = tmp_path / "feed.csv", _tenant()
    write_sample(feed, products=100)
    with FeedServer(feed, bytes_per_second=60_000) as server:
        house.configure(f'[modules.harvest.suppliers.alpine]\nurl = "{server.url()}"\nallow_private = true\n')
        house.work()
        result = asyncio.run(_steer(temporal_server.address, tenant, server))
    assert result.counts is not None
    assert result.counts.created > 100
    assert result.counts.pages < 10, "the pages after the update hold more"


_NO_OTHER_CODEC = """
import betterproto2

def refuse(name):
    def refused(*_, **__):
        raise AssertionError(f"betterproto2's own codec was used: Message.{name}")
    return refused

for name in ("parse", "load", "dump", "__bytes__", "__len__", "SerializeToString", "FromString", "to_dict", "from_dict",
             "to_json", "from_json", "to_pydict", "from_pydict", "__reduce__"):
    if hasattr(betterproto2.Message, name):
        setattr(betterproto2.Message, name, refuse(name))
print("betterproto2's codec is closed", flush=True)
"""


def test_no_road_of_a_harvest_uses_another_codec(house: Any, tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir()
    # Python runs a module of this name as it starts, in every process that has the folder on its path.
    (tmp_path / "closed" / "sitecustomize.py").write_text(_NO_OTHER_CODEC)
    house.configure("[modules.harvest]\nsample_products = 60\n")
    service = house.serve_alone(PYTHONPATH=str(tmp_path / "closed"))
    worker = house.work(PYTHONPATH=str(tmp_path / "closed"))
    ended = house.wait(house.start(supplier_code="camping-trade", tenant_id=_tenant()))
    assert ended["status"] == "completed", ended
    for process in (service, worker):
        assert "codec is closed" in process.output
        assert "codec was used" not in process.output


@pytest.mark.skipif(not _SNOWDEVIL.exists(), reason="the real export is not on this machine")
def test_a_real_export_is_harvested(house: Any) -> None:
    tenant = _tenant()
    house.configure(
        f'[modules.harvest]\nfeed_folders = ["{_SNOWDEVIL.parent}"]\n'
        f'[modules.harvest.suppliers.snowdevil]\nurl = "{_SNOWDEVIL.as_uri()}"\n'
    )
    house.serve()
    house.work()
    ended = house.wait(house.start(supplier_code="snowdevil", tenant_id=tenant))
    assert ended["status"] == "completed", ended
    counts = _numbers(ended["result"])
    assert counts["created"] + counts.get("rejected", 0) == counts["fetched"]
    assert counts["created"] > 600
    with Catalogue.open(house.catalogue_url) as catalogue:
        reasons = Counter(catalogue.rejected_by_reason(tenant, "snowdevil", ended["result"]["harvest_id"]))
        assert reasons.total() == counts.get("rejected", 0)


def test_slow_feeds_of_one_tenant_keep_no_other_from_harvesting(house: Any, tmp_path: Path) -> None:
    codes = [f"slow-{number}" for number in range(24)]
    feed = tmp_path / "slow.csv"
    write_sample(feed, products=50)
    # One byte a second is no silence, so no time limit ends it before the test does.
    with FeedServer(feed, bytes_per_second=1) as slow:
        house.configure(
            "[modules.harvest]\nsample_products = 60\nmax_fetches_per_tenant = 6\n"
            + "".join(
                f'[modules.harvest.suppliers.{code}]\nurl = "{slow.url()}"\nallow_private = true\n' for code in codes
            )
        )
        house.serve()
        house.work(CONTEXTWORKER_MAX_CONCURRENT_ACTIVITIES="2")
        flooding = _tenant()
        started = [house.start(supplier_code=code, tenant_id=flooding) for code in codes]
        deadline = time.monotonic() + 60
        while len(slow.requests) < 6:
            assert time.monotonic() < deadline, f"{len(slow.requests)} of the slow feeds are read from"
            time.sleep(0.05)  # The workers are other processes, and the server of the feed tells of no request.
        ended = house.wait(house.start(supplier_code="camping-trade", tenant_id=_tenant()))
        assert ended["status"] == "completed", ended
        assert len(slow.requests) == 6
        assert {house.status(workflow_id)["status"] for workflow_id in started} == {"running"}


def test_a_second_start_joins_the_run_that_is_under_way(house: Any) -> None:
    tenant = _tenant()
    house.serve()
    payload = {"workflow_type": "harvest", "supplier_code": "camping-trade", "tenant_id": tenant}
    first, second = house.call("StartWorkflow", payload), house.call("StartWorkflow", payload)
    assert first["workflow_id"] == f"harvest/{tenant}/camping-trade"
    assert first == second


@pytest.mark.parametrize(
    ("supplier", "content", "kind", "told"),
    [
        pytest.param("nobody", None, "SupplierUnknown", "camping-trade", id="unknown supplier"),
        pytest.param("alpine", b"", "FeedEmpty", "feed", id="empty feed"),
        pytest.param("alpine", b"<!doctype html><html>Hello</html>", "FeedFormat", "HTML", id="a web page"),
        pytest.param("alpine", b"\x00\x01\x02\x03" * 500, "FeedFormat", "feed", id="binary junk"),
    ],
)
def test_a_feed_that_cannot_be_used_fails_with_its_type(
    house: Any, tmp_path: Path, supplier: str, content: bytes | None, kind: str, told: str
) -> None:
    feed = tmp_path / "feed.csv"
    feed.write_bytes(content or b"")
    with FeedServer(feed) as server:
        house.configure(f'[modules.harvest.suppliers.alpine]\nurl = "{server.url()}"\nallow_private = true\n')
        house.serve()
        house.work()
        ended = house.wait(house.start(supplier_code=supplier, tenant_id=_tenant()))
    assert ended["status"] == "failed"
    assert ended["error"].startswith(f"{kind}: ")
    assert told in ended["error"]


@pytest.mark.parametrize(
    "parameters",
    [
        pytest.param({"page_size": -1}, id="page_size"),
        pytest.param({"page_size": 1001}, id="large page_size"),
        pytest.param({"max_products": -5}, id="max_products"),
    ],
)
def test_a_parameter_out_of_range_fails_at_once(
    house: Any, temporal_server: EmbeddedServer, parameters: dict[str, Any]
) -> None:
    async def start_past_the_service() -> BaseException | None:
        client = await Client.connect(temporal_server.address, plugins=[ContextWorkerPlugin()])
        request = HarvestRequest(tenant_id=_tenant(), supplier_code="camping-trade", **parameters)
        with pytest.raises(WorkflowFailureError) as caught:
            await harvest_temporal.HarvestServiceClient(client).harvest(request)
        return caught.value.cause

    house.serve()
    with pytest.raises(grpc.RpcError, match=f"payload.{next(iter(parameters))}: must be greater"):
        house.start(supplier_code="camping-trade", tenant_id=_tenant(), **parameters)
    house.work()
    cause = asyncio.run(start_past_the_service())
    assert isinstance(cause, ApplicationError)
    assert cause.type == INVALID_INPUT
    assert f"{next(iter(parameters))}: must be greater" in cause.message


def test_an_unreachable_feed_is_tried_again_and_then_fails_with_its_type(house: Any) -> None:
    house.configure(
        f'[modules.harvest.suppliers.gone]\nurl = "http://127.0.0.1:{usual_or_free_port(0)}/feed.csv?key=secret"\n'
        "allow_private = true\n"
    )
    house.serve()
    house.work()
    ended = house.wait(house.start(supplier_code="gone", tenant_id=_tenant()))
    assert ended["status"] == "failed"
    assert ended["error"].startswith("FeedUnreachable: ")
    assert "secret" not in ended["error"]


@pytest.mark.parametrize(
    ("url", "more", "kind", "told"),
    [
        pytest.param(
            "http://127.0.0.1:{port}/feed.csv",
            "",
            "FeedRefused",
            "127.0.0.1 is a private address (loopback), which is forbidden; set allow_private = true in "
            "[modules.harvest.suppliers.alpine]",
            id="loopback",
        ),
        pytest.param(
            "http://169.254.169.254/feed.csv",
            "allow_private = true\n",
            "FeedRefused",
            "169.254.169.254 is an address of a cloud's metadata service",
            id="metadata",
        ),
        pytest.param(
            "http://127.0.0.1:{port}/none.csv", "allow_private = true\n", "FeedNotFound", "404", id="no such feed"
        ),
        pytest.param(
            "http://127.0.0.1:{port}/feed.csv",
            "allow_private = true\nmax_bytes = 100\n",
            "FeedLimit",
            "change its max_bytes",
            id="too long",
        ),
    ],
)
def test_what_is_refused_fails_at_once_with_its_type_and_the_way_out(
    house: Any, tmp_path: Path, url: str, more: str, kind: str, told: str
) -> None:
    folder = tmp_path / "feeds"
    folder.mkdir()
    write_sample(folder / "feed.csv", products=5)
    with FeedServer(folder) as server:
        address = url.format(port=server.port)
        house.configure(f'[modules.harvest.suppliers.alpine]\nurl = "{address}"\n{more}')
        house.serve()
        house.work()
        ended = house.wait(house.start(supplier_code="alpine", tenant_id=_tenant()))
        assert len(server.requests) == (0 if kind == "FeedRefused" else 1)
    assert ended["status"] == "failed"
    assert ended["error"].startswith(f"{kind}: ")
    assert told in ended["error"]


def test_a_feed_that_comes_back_in_time_is_harvested(house: Any, tmp_path: Path) -> None:
    feed = tmp_path / "feed.csv"
    write_sample(feed, products=20)
    with FeedServer(feed, fail_first=2) as server:
        house.configure(f'[modules.harvest.suppliers.alpine]\nurl = "{server.url()}"\nallow_private = true\n')
        house.serve()
        house.work()
        ended = house.wait(house.start(supplier_code="alpine", tenant_id=_tenant()))
    assert ended["status"] == "completed"


@pytest.mark.parametrize(
    ("payload", "code", "reason", "told"),
    [
        pytest.param({}, grpc.StatusCode.INVALID_ARGUMENT, "PAYLOAD_INVALID", "workflow_type", id="no workflow_type"),
        pytest.param(
            {"workflow_type": "harvset"},
            grpc.StatusCode.NOT_FOUND,
            "WORKFLOW_TYPE_UNKNOWN",
            "known ones: enrich, execute_code, gardener, harvest",
            id="workflow_type that does not exist",
        ),
        pytest.param(
            {"workflow_type": "harvest", "tenant_id": "t"},
            grpc.StatusCode.INVALID_ARGUMENT,
            "PAYLOAD_INVALID",
            "supplier_code",
            id="parameter missing",
        ),
        pytest.param(
            {"workflow_type": "harvest", "suplier_code": "camping-trade"},
            grpc.StatusCode.INVALID_ARGUMENT,
            "PAYLOAD_INVALID",
            "supplier_code",
            id="parameter misspelt",
        ),
        pytest.param(
            {"workflow_type": "harvest", "supplier_code": "x", "page_size": 1.5},
            grpc.StatusCode.INVALID_ARGUMENT,
            "PAYLOAD_INVALID",
            "page_size",
            id="fraction for an integer",
        ),
        pytest.param(
            {"workflow_type": "harvest", "supplier_code": "x", "task_queue": "elsewhere"},
            grpc.StatusCode.INVALID_ARGUMENT,
            "PAYLOAD_INVALID",
            "task_queue",
            id="another task queue",
        ),
        pytest.param(
            {"workflow_type": "harvest", "supplier_code": "x", "args": {"supplier_code": "y"}},
            grpc.StatusCode.INVALID_ARGUMENT,
            "PAYLOAD_INVALID",
            "is set twice",
            id="parameter given twice",
        ),
    ],
)
def test_a_wrong_start_is_refused_with_its_status(
    house: Any, payload: dict[str, Any], code: grpc.StatusCode, reason: str, told: str
) -> None:
    house.serve()
    with pytest.raises(grpc.RpcError) as caught:
        house.call("StartWorkflow", payload)
    error = caught.value
    assert isinstance(error, grpc.Call)
    assert error.code() is code
    assert told in (error.details() or "")
    status = rpc_status.from_call(error)
    assert status is not None
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert (info.reason, info.domain) == (reason, "worker.contextunity")
    assert uuid.UUID(info.metadata["trace_id"])


def test_all_violations_of_a_payload_are_told_at_once(house: Any) -> None:
    house.serve()
    payload = {"workflow_type": "harvest", "supplier_code": 7, "page_size": "many", "colour": "red"}
    with pytest.raises(grpc.RpcError) as caught:
        house.call("StartWorkflow", payload)
    assert isinstance(caught.value, grpc.Call)
    status = rpc_status.from_call(caught.value)
    assert status is not None
    bad = error_details_pb2.BadRequest()
    assert status.details[1].Unpack(bad)
    assert {violation.field for violation in bad.field_violations} == {
        "payload.supplier_code",
        "payload.page_size",
        "payload.colour",
    }


def test_the_status_of_a_task_that_does_not_exist_is_not_found(house: Any) -> None:
    house.serve()
    with pytest.raises(grpc.RpcError) as caught:
        house.status("harvest/nobody/nothing")
    assert isinstance(caught.value, grpc.Call)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert "harvest/nobody/nothing" in (caught.value.details() or "")


def test_bytes_that_are_no_unit_are_an_invalid_argument(house: Any) -> None:
    house.serve()
    with grpc.insecure_channel(f"127.0.0.1:{house.port}") as channel:
        call = channel.unary_unary("/contextunity.worker.WorkerService/StartWorkflow")
        with pytest.raises(grpc.RpcError) as caught:
            call(b"\x0a\xff\xff", timeout=10, wait_for_ready=True)
    assert isinstance(caught.value, grpc.Call)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert json.dumps(caught.value.details())

// Has a supplier's catalogue harvested by ContextWorker, first by the contract's own service, then by the envelope, and
// says what came of it. It runs in Node and in browsers: they differ in the transport alone.

import { create } from "@bufbuild/protobuf";
import { anyPack, anyUnpack } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, createClient, type Interceptor, type Transport } from "@connectrpc/connect";
import { ContextUnitSchema } from "../gen/contextunity/core/context_unit_pb.js";
import { HarvestRequestSchema, HarvestResponseSchema, HarvestService } from "../gen/contextunity/harvest/v1/harvest_pb.js";
import {
  StartWorkflowResultSchema,
  TaskState,
  TaskStatusSchema,
  WatchTaskRequestSchema,
} from "../gen/contextunity/worker/tasks_pb.js";
import { WorkerService } from "../gen/contextunity/worker/worker_pb.js";
import { BadRequestSchema } from "../gen/google/rpc/error_details_pb.js";

type Say = (line: string) => void;

/** Shows a token with each call. */
export function bearer(token: string): Interceptor {
  return (next) => (request) => {
    request.header.set("authorization", `Bearer ${token}`);
    return next(request);
  };
}

export async function run(transport: Transport, say: Say): Promise<void> {
  await harvest(transport, say);
  await refused(transport, say);
  await watch(transport, say);
}

/** Calls the contract's own service, which answers when the harvest has ended. */
async function harvest(transport: Transport, say: Say): Promise<void> {
  const client = createClient(HarvestService, transport);
  // Calls with the same id are one request: however often it is sent, it is one harvest.
  const headers = { "contextunity-request-id": crypto.randomUUID() };
  // A call that runs into its deadline ends; the harvest goes on, and the same call again attaches to it.
  const timeoutMs = 120_000;
  const request = { supplierCode: "camping-trade", maxProducts: 300n };
  let [first, second] = [new Headers(), new Headers()];
  const response = await client.harvest(request, { headers, timeoutMs, onHeader: (found) => (first = found) });
  say(`typed: ${first.get("contextunity-workflow-id")}: ${response.counts?.synced} products synced`);

  await client.harvest(request, { headers, timeoutMs, onHeader: (found) => (second = found) });
  say(`repeated: same run: ${first.get("contextunity-run-id") === second.get("contextunity-run-id")}`);
}

/** Sends what breaks the contract's rules, and reads which fields are wrong. */
async function refused(transport: Transport, say: Say): Promise<void> {
  const client = createClient(HarvestService, transport);
  try {
    await client.harvest({ supplierCode: "camping-trade", pageSize: 5000 });
  } catch (reason) {
    const error = ConnectError.from(reason);
    for (const violation of error.findDetails(BadRequestSchema).flatMap((detail) => detail.fieldViolations)) {
      say(`refused: ${Code[error.code]}: ${violation.field}: ${violation.description}`);
    }
    return;
  }
  throw new Error("a page size of 5000 was not refused");
}

/** Starts a harvest by the envelope, which answers at once, and follows it to its end. */
async function watch(transport: Transport, say: Say): Promise<void> {
  const client = createClient(WorkerService, transport);
  const body = create(HarvestRequestSchema, { supplierCode: "camping-trade", maxProducts: 300n });
  // The same unit sent again is the same request.
  const unit = create(ContextUnitSchema, {
    unitId: crypto.randomUUID(),
    body: anyPack(HarvestRequestSchema, body),
    provenance: ["harvester:start"],
  });
  const [first, second] = [await client.startWorkflow(unit), await client.startWorkflow(unit)].map((answer) =>
    answer.body && anyUnpack(answer.body, StartWorkflowResultSchema),
  );
  if (!first) throw new Error("the answer to a start is a StartWorkflowResult");
  say(`started: ${first.workflowId}`);
  say(`repeated: same run: ${first.runId === second?.runId}`);

  const ask = create(WatchTaskRequestSchema, { workflowId: first.workflowId, runId: first.runId });
  for await (const answer of client.watchTask({ body: anyPack(WatchTaskRequestSchema, ask) })) {
    const task = answer.body && anyUnpack(answer.body, TaskStatusSchema);
    if (!task) throw new Error("what is watched is a TaskStatus");
    say(`watched: ${TaskState[task.status]}`);
    const response = task.result && anyUnpack(task.result, HarvestResponseSchema);
    if (response) say(`result: ${response.counts?.synced} products synced`);
  }
}

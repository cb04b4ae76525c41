"""The table of checks, in the order of the report. Modules add theirs by `ModuleConfig.checks`."""

from __future__ import annotations

from .machine import (
    check_data_folder,
    check_files,
    check_identity,
    check_modules,
    check_payload_storage,
    check_ports,
    check_quotas_redis,
    check_settings,
    check_versions,
)
from .run import Check
from .service import check_certificate, check_contracts, check_service, check_tls_cert_file
from .temporal import check_attributes, check_clock, check_queues, check_temporal

__all__ = ["CHECKS"]

CHECKS = (
    Check(name="version", run=check_versions),
    Check(name="setting", run=check_settings),
    Check(name="module", run=check_modules, needs_modules=True),
    Check(name="file", run=check_files),
    Check(name="tls.certificate", run=check_tls_cert_file),
    Check(name="identity", run=check_identity),
    Check(name="payload_storage", run=check_payload_storage),
    Check(name="disk", run=check_data_folder),
    Check(name="port", run=check_ports),
    Check(name="quotas.redis", run=check_quotas_redis),
    Check(name="temporal", run=check_temporal),
    Check(name="temporal.attributes", run=check_attributes, needs_temporal=True, needs_modules=True),
    Check(name="queue", run=check_queues, needs_temporal=True, needs_modules=True),
    Check(name="clock.temporal", run=check_clock, needs_temporal=True),
    Check(name="service.health", run=check_service),
    Check(name="service.certificate", run=check_certificate),
    Check(name="contracts", run=check_contracts, needs_modules=True),
)

"""What `contextworker doctor` checks: this machine, its settings, and the servers that it needs.

- findings: what a check finds; modules return these from checks of their own
- run: the machine that is examined, and the checks, each bounded in time
- machine: versions, settings, modules, files, disk and ports
- temporal: the Temporal server, search attributes, task queues and the clock
- service: the running service, its certificate, and its contracts against this build
- table: all of these
"""

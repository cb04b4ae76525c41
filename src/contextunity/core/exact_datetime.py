"""Times with nanoseconds; see `betterproto2_codec.exact_datetime`."""

from betterproto2_codec.exact_datetime import ExactDatetime, ExactTimedelta, nanosecond_in, read_isoformat

__all__ = ["ExactDatetime", "ExactTimedelta", "nanosecond_in", "read_isoformat"]

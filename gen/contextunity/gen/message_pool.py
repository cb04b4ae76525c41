import copyreg

import betterproto2


class MessagePool(betterproto2.MessagePool):
    """The messages of this tree."""

    def register_message(self, package_name: str, message_name: str, message_type: type[betterproto2.Message]) -> None:
        super().register_message(package_name, message_name, message_type)
        message_type.__reduce__ = _reduce


def _reduce(message: betterproto2.Message) -> tuple[object, ...]:
    """What a message is pickled as: its attributes, where betterproto2's bytes would lose nanoseconds and signs."""
    return copyreg.__newobj__, (type(message),), vars(message)


default_message_pool = MessagePool()

"""The processes of a deployment, as the tests of harvest have them."""

from tests.modules.harvest.conftest import house

__all__ = ["house"]

import pytest

from sctrellis._core.keys import Keys


def test_every_slot_moves_with_key_added():
    def slots(keys):
        return [keys.network, keys.std, keys.record, keys.fold, keys.stage("start")]

    assert slots(Keys.for_method("m", None)) == ["m", "m_std", "m", "m_fold", "m_start"]
    assert slots(Keys.for_method("m", "mine")) == ["mine", "mine_std", "mine", "mine_fold", "mine_start"]


@pytest.mark.parametrize(("key", "error"), [("", ValueError), ("a/b", ValueError), (1, TypeError), (True, TypeError)])
def test_names_that_cannot_be_slots(key, error):
    with pytest.raises(error, match="Expected `key_added` to be a"):
        Keys.for_method("m", key)

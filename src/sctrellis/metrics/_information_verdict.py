"""What a certificate says of the cells."""

import pandas as pd

VERDICT_Q = 0.2
LEAST_POWER = 0.05
_EASY = ("linear", "logic", "counts")
_HARD = ("measurement", "confounder")
_NAMES = {
    "linear": "linear effects",
    "logic": "regulators that act together",
    "counts": "counted targets",
    "measurement": "regulators measured at half the depth",
    "confounder": "a hidden cause",
}


def verdict(table: pd.DataFrame) -> tuple[str, str]:
    """Return the code and a sentence.

    Parameters
    ----------
    table
        Table of :func:`certificate`, with the rate :data:`VERDICT_Q`.
    """
    rows = table[table["q"] == VERDICT_Q].set_index("level")
    carried = [level for level in rows.index if rows.loc[level, "passes"] and rows.loc[level, "power"] > LEAST_POWER]
    failed = [level for level in (*_EASY, *_HARD) if level not in carried]
    if not carried:
        return "I0", (
            "Nothing can be certified: in no planted world are more than 5 % of the true edges found at the rate of "
            "false discoveries that is asked for. A network of these cells is a ranking without error control."
        )
    if any(level in failed for level in _EASY):
        text = (
            "Only rough statements: edges can be certified with "
            f"{_listed(carried)}, but not with {_listed([f for f in failed if f in _EASY])}. Speak of groups of "
            "regulators and of associations."
        )
        return "I1", text
    if failed:
        text = (
            f"Single edges can be certified, as long as nothing else acts: not with {_listed(failed)}. Look for what "
            "is hidden before you believe a q-value."
        )
        return "I2", text
    return "I3", "Single edges can be certified, even with regulators measured at half the depth and a hidden cause."


def _listed(levels: list[str]) -> str:
    names = [_NAMES[level] for level in levels]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"

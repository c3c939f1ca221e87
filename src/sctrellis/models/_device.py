"""Which device a fit runs on; the only place where device names are parsed."""

import torch

from sctrellis._settings import settings


def resolve_device(device: str | torch.device = "auto") -> torch.device:
    """Return the torch device to use.

    Parameters
    ----------
    device
        Torch device. ``"auto"`` follows ``settings.device`` and then takes CUDA when present, else the CPU; another
        name is taken as it is and raises where the device is missing. MPS is used only when asked for.

    Returns
    -------
    torch.device
        The device.

    Raises
    ------
    ValueError
        If the name is unknown or the device is not there.

    Examples
    --------
    >>> import sctrellis as tr
    >>> tr.models.resolve_device("cpu")
    device(type='cpu')
    """
    if isinstance(device, str) and device == "auto":
        device = settings.device
    if isinstance(device, str) and device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
    except (RuntimeError, TypeError) as error:
        msg = f"Expected `device` to be 'auto', 'cpu', 'cuda', 'cuda:0', … or 'mps', found {device!r}."
        raise ValueError(msg) from error
    if resolved.type == "cuda":
        n_devices = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (resolved.index or 0) >= n_devices:
            msg = f"`device={str(device)!r}`, but {n_devices} CUDA devices are present. Use `device='auto'` or 'cpu'."
            raise ValueError(msg)
    elif resolved.type == "mps":
        if not torch.backends.mps.is_available():
            msg = "`device='mps'`, but this machine has no MPS device. Use `device='auto'` or 'cpu'."
            raise ValueError(msg)
    elif resolved.type != "cpu":
        msg = f"Expected `device` to be a CPU, CUDA or MPS device, found {device!r}."
        raise ValueError(msg)
    return resolved

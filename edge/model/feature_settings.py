"""What the model hears: the feature settings of a ``train.yaml`` of any age, honoured or refused by name.

v2 and later compute features while they read (``dataset_conf``: ``fbank_conf``, ``resample_conf``). v0 and v1 had
``collate_conf.feature_extraction_conf``, or read what Kaldi had computed before (``raw_wav: false``).
"""

from __future__ import annotations

from typing import Any

from edge.model.settings import ConfigError, check_range, section, show, typed
from edge.runtime.manifest import FeatureOptions
from edge.system.console import Say, silent

_WINDOWS = ("povey", "hamming", "hanning", "rectangular")
_PITCH = 3  # channels that Kaldi's pitch adds
_CEPSTRA = (13, 26, 39)  # usual numbers of cepstra, with their differences
_MEL_COUNTS = (23, 24, 40, 64, 80, 128)  # usual numbers of mel bins
# Arguments of torchaudio's kaldi.fbank at the values that features are computed with here; another value changes them.
_FBANK: dict[str, Any] = {
    "low_freq": 20.0,
    "high_freq": 0.0,
    "preemphasis_coefficient": 0.97,
    "remove_dc_offset": True,
    "round_to_power_of_two": True,
    "snip_edges": True,
    "use_energy": False,
    "use_log_fbank": True,
    "use_power": True,
    "htk_compat": False,
    "subtract_mean": False,
    "vtln_warp": 1.0,
    "raw_energy": True,
}
_READ = {"num_mel_bins", "frame_length", "frame_shift", "window_type"}
_TRAINING_ONLY = {"dither", "energy_floor", "vtln_high", "vtln_low", "min_duration", "blackman_coeff", "channel"}


def features(data: dict[str, Any], say: Say = silent) -> FeatureOptions:
    """The filter bank that the model was trained on.

    Raises:
        ConfigError: other features, or a setting of them that is not known here.
    """
    dataset = section(data, "dataset_conf")
    old = section(section(data, "collate_conf"), "feature_extraction_conf", "collate_conf.")
    _check_kind(data, dataset, old, say)
    fbank = section(dataset, "fbank_conf", "dataset_conf.")
    resample = section(dataset, "resample_conf", "dataset_conf.")
    _check_fbank(fbank, say)
    settings = {
        "sample_rate": ("dataset_conf.resample_conf.resample_rate", resample.get("resample_rate", 16000), 0),
        "num_mel_bins": _either(fbank, "num_mel_bins", old, "mel_bins", data["input_dim"], 0),
        "frame_length_ms": _either(fbank, "frame_length", old, "frame_length", 25, 0.0),
        "frame_shift_ms": _either(fbank, "frame_shift", old, "frame_shift", 10, 0.0),
        "window": ("dataset_conf.fbank_conf.window_type", fbank.get("window_type", "povey"), ""),
    }
    values = {}
    for name, (where, value, kind) in settings.items():
        values[name] = typed(value, kind, where)
        check_range(name, values[name], where)
    _one_of(values["window"], _WINDOWS, "dataset_conf.fbank_conf.window_type")
    return FeatureOptions(**values)


def _either(
    fbank: dict[str, Any], name: str, old: dict[str, Any], old_name: str, default: Any, kind: Any
) -> tuple[str, Any, Any]:
    """A setting of today's section, or else of the one of v0 and v1, and where it was found."""
    if name in fbank or old_name not in old:
        return f"dataset_conf.fbank_conf.{name}", fbank.get(name, default), kind
    return f"collate_conf.feature_extraction_conf.{old_name}", old[old_name], kind


def _check_kind(data: dict[str, Any], dataset: dict[str, Any], old: dict[str, Any], say: Say) -> None:
    """Filter banks only: refuse cepstra, pitch, and Whisper's spectrogram."""
    _one_of(dataset.get("feats_type", "fbank"), ("fbank",), "dataset_conf.feats_type")
    _one_of(old.get("feature_type", "fbank"), ("fbank",), "collate_conf.feature_extraction_conf.feature_type")
    dim = data["input_dim"]
    mel = section(dataset, "fbank_conf", "dataset_conf.").get("num_mel_bins", old.get("mel_bins"))
    raw = _raw_wav(data, dataset)
    pitch = old.get("using_pitch") or dataset.get("using_pitch") or data.get("using_pitch")
    with_pitch = isinstance(dim, int) and dim - _PITCH in (*_MEL_COUNTS, mel)
    if with_pitch and (not raw or pitch):
        why = "raw_wav: false" if not raw else "using_pitch: true"
        raise ConfigError(
            f"train.yaml: {why} with input_dim {dim}: these are Kaldi features of {dim - _PITCH} mel bins and pitch, "
            "which are not computed here; supported: filter banks without pitch"
        )
    if pitch:
        say(
            f"train.yaml: using_pitch: true, but input_dim {dim} leaves no room for pitch; taken as {dim} mel bins "
            "without it, as WeNet computed them"
        )
    if not raw:
        if dim in _CEPSTRA and mel != dim:
            raise ConfigError(
                f"train.yaml: raw_wav: false with input_dim {dim}: these are Kaldi features of another kind (MFCC?), "
                "which are not computed here; supported: filter banks"
            )
        say(
            f"train.yaml: raw_wav: false: Kaldi computed the features before training; taken as {dim} mel bins of its "
            "default settings (25 ms, 10 ms, povey, no energy)"
        )
    elif with_pitch and mel is None:
        say(
            f"train.yaml: input_dim {dim} and no number of mel bins: taken as {dim} mel bins; if it is {dim - _PITCH} "
            "and Kaldi's pitch, the text will be wrong"
        )


def _raw_wav(data: dict[str, Any], dataset: dict[str, Any]) -> bool:
    for where in (data, section(data, "collate_conf"), dataset):
        if "raw_wav" in where:
            return bool(typed(where["raw_wav"], True, "raw_wav"))
    return True


def _check_fbank(fbank: dict[str, Any], say: Say) -> None:
    for name, value in fbank.items():
        where = f"dataset_conf.fbank_conf.{name}"
        if name in _FBANK:
            if value != _FBANK[name]:
                raise ConfigError(f"train.yaml: {where}: {show(value)} is not supported; supported: {_FBANK[name]!r}")
        elif name not in _READ | _TRAINING_ONLY:
            say(f"train.yaml: {where}: {show(value)} is not a setting of WeNet's filter bank; not used")


def _one_of(value: Any, supported: tuple[str, ...], where: str) -> None:
    if value not in supported:
        raise ConfigError(f"train.yaml: {where}: {show(value)} is not supported; supported: {', '.join(supported)}")

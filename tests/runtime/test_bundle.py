from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from bundle_helpers import MANIFEST, build

from edge.runtime import Bundle, BundleError, Manifest, ManifestError, write_bundle


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    write_bundle(tmp_path / "bundle", build)
    return tmp_path / "bundle"


def edit(bundle: Path, **changes: Any) -> None:
    """Change the manifest's JSON; None removes a field, a dict changes a section."""
    path = bundle / "manifest.json"
    data = json.loads(path.read_text())
    for name, value in changes.items():
        if value is None:
            del data[name]
        elif isinstance(value, dict) and isinstance(data.get(name), dict):
            data[name].update(value)
        else:
            data[name] = value
    path.write_text(json.dumps(data))


def test_written_bundle_opens_with_the_same_manifest(bundle: Path) -> None:
    opened = Bundle.open(bundle)
    assert opened.encoder == bundle / "encoder.onnx" and len(opened.tokens) == 3
    assert set(opened.manifest.checksums) == {"encoder.onnx", "encoder.onnx.data", "decoder.onnx", "tokens.txt"}
    assert opened.manifest.encoder.bytes == 900 + 10000 and opened.manifest.decoder.bytes == 9
    same = dataclasses.replace(opened.manifest, checksums={}, encoder=MANIFEST.encoder, decoder=MANIFEST.decoder)
    assert same == MANIFEST
    assert sorted(p.name for p in bundle.parent.iterdir()) == ["bundle"], "no temporary directory is left"


@pytest.mark.parametrize("name", ["encoder.onnx", "encoder.onnx.data", "decoder.onnx", "tokens.txt"])
def test_one_flipped_bit_is_found(bundle: Path, name: str) -> None:
    data = bytearray((bundle / name).read_bytes())
    data[len(data) // 2] ^= 1
    (bundle / name).write_bytes(data)
    with pytest.raises(BundleError, match=rf"{name}: expected SHA-256 [0-9a-f]{{64}}, found [0-9a-f]{{64}}.*u2edge"):
        Bundle.open(bundle)


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize("name", ["encoder.onnx", "encoder.onnx.data", "decoder.onnx", "tokens.txt", "manifest.json"])
def test_missing_file_is_named(bundle: Path, name: str, verify: bool) -> None:
    (bundle / name).unlink()
    with pytest.raises(BundleError, match=rf"{name}.*found (nothing|none).*u2edge convert CKPT -o BUNDLE"):
        Bundle.open(bundle, verify=verify)


def test_truncated_file_is_found_without_checksums(bundle: Path) -> None:
    (bundle / "encoder.onnx.data").write_bytes(b"\x01\x02" * 4999)
    with pytest.raises(BundleError, match=r"expected 10900 bytes with its \.data file, found 10898"):
        Bundle.open(bundle, verify=False)


@pytest.mark.parametrize("name", ["../outside", "/etc/hostname", "a/../../outside", "C:\\x", "..", ""])
@pytest.mark.parametrize("where", ["encoder", "checksums"])
def test_escaping_paths_are_refused(bundle: Path, name: str, where: str) -> None:
    (bundle.parent / "outside").write_bytes(b"x")
    edit(bundle, **{where: {"file": name} if where == "encoder" else {name: "0" * 64}})
    with pytest.raises(BundleError, match=r"inside the bundle|found a directory"):
        Bundle.open(bundle)


def test_links_out_of_the_bundle_are_refused(bundle: Path) -> None:
    outside = bundle.parent / "outside"
    shutil.copy(bundle / "decoder.onnx", outside)
    (bundle / "decoder.onnx").unlink()
    (bundle / "decoder.onnx").symlink_to(outside)
    with pytest.raises(BundleError, match=r"decoder\.onnx: expected a file inside the bundle, found a link to"):
        Bundle.open(bundle)


@pytest.mark.parametrize("name", ["tokens.txt", "encoder.onnx", "encoder.onnx.data"])
def test_every_file_that_is_read_needs_a_checksum(bundle: Path, name: str) -> None:
    data = json.loads((bundle / "manifest.json").read_text())
    del data["checksums"][name]
    (bundle / "manifest.json").write_text(json.dumps(data))
    with pytest.raises(BundleError, match=f"expected a checksum of {name}"):
        Bundle.open(bundle)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema_version": 2}, "expected schema_version 1, found 2.*update u2edge: pip install"),
        ({"schema_version": None}, "expected schema_version 1, found None"),
        ({"tokens": {"size": 4}}, "expected 4 tokens, found 3"),
        ({"tokens": {"blank": 3}}, r"tokens\.blank: expected an id in 0\.\.2, found 3"),
        ({"tokens": {"size": "3"}}, r"tokens\.size: expected int, found '3'"),
        ({"stream": {"subsampling": 0}}, r"stream\.subsampling: expected a positive number, found 0"),
        ({"stream": {"right_context": 1}}, r"right_context: expected at least subsampling - 1 = 3, found 1"),
        ({"stream": {"max_positions": -5}}, r"max_positions: expected a positive number, found -5"),
        ({"features": {"frame_shift_ms": float("nan")}}, r"frame_shift_ms: expected a positive number, found nan"),
        ({"rescoring": {"reverse_weight": 2.0}}, r"reverse_weight: expected 0\.\.1, found 2\.0"),
        ({"caches": None}, "field 'caches' is missing"),
        ({"moe": {"layers": "x"}}, r"moe\.layers: expected a list"),
    ],
)
def test_bad_manifests_name_the_field(bundle: Path, changes: dict[str, Any], message: str) -> None:
    edit(bundle, **changes)
    with pytest.raises(BundleError, match=message) as caught:
        Bundle.open(bundle)
    assert str(bundle) in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"x"'])
def test_manifest_that_is_not_an_object(bundle: Path, text: str) -> None:
    (bundle / "manifest.json").write_text(text)
    with pytest.raises(ManifestError, match=r"manifest\.json"):
        Bundle.open(bundle)


def test_places_that_are_not_bundles(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"expected a bundle directory, found nothing.*u2edge convert"):
        Bundle.open(tmp_path / "nowhere")
    (tmp_path / "file").write_text("x")
    with pytest.raises(BundleError, match="found a file"):
        Bundle.open(tmp_path / "file")
    (tmp_path / "train.yaml").write_text("x")
    with pytest.raises(BundleError, match="this is a WeNet experiment; u2edge convert"):
        Bundle.open(tmp_path)


def test_failed_build_leaves_nothing(tmp_path: Path) -> None:
    def fails(folder: Path) -> Manifest:
        build(folder)
        raise RuntimeError("disk full")

    def incomplete(folder: Path) -> Manifest:
        build(folder)
        (folder / "decoder.onnx").unlink()
        return MANIFEST

    with pytest.raises(RuntimeError, match="disk full"):
        write_bundle(tmp_path / "bundle", fails)
    with pytest.raises(BundleError, match=r"decoder\.onnx"):
        write_bundle(tmp_path / "bundle", incomplete)
    assert list(tmp_path.iterdir()) == []


def test_existing_bundle_is_replaced_only_on_request_and_only_by_a_good_one(bundle: Path) -> None:
    before = (bundle / "manifest.json").read_bytes()
    with pytest.raises(BundleError, match="already there"):
        write_bundle(bundle, build)

    def fails(folder: Path) -> Manifest:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        write_bundle(bundle, fails, overwrite=True)
    assert (bundle / "manifest.json").read_bytes() == before
    renamed = write_bundle(bundle, lambda f: dataclasses.replace(build(f), name="new"), overwrite=True)
    assert renamed.manifest.name == Bundle.open(bundle).manifest.name == "new"
    assert sorted(p.name for p in bundle.parent.iterdir()) == ["bundle"]


def test_other_files_are_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.txt").write_text("years of work")
    with pytest.raises(BundleError, match="found other files"):
        write_bundle(tmp_path / "home", build, overwrite=True)
    assert (tmp_path / "home" / "thesis.txt").read_text() == "years of work"
    (tmp_path / "empty").mkdir()
    write_bundle(tmp_path / "empty", build)
    assert Bundle.open(tmp_path / "empty").manifest.name == "test"


@pytest.mark.parametrize(
    ("field", "value"),
    [("sample_rate", 1), ("frame_shift_ms", 0.01), ("frame_length_ms", 0.001), ("num_mel_bins", 100000)],
)
def test_feature_options_that_would_crash_the_extractor_are_refused(field: str, value: float) -> None:
    data = json.loads(MANIFEST.to_json())
    data["features"][field] = value
    with pytest.raises(ManifestError, match=rf"features\.{field}"):
        Manifest.from_json(json.dumps(data))

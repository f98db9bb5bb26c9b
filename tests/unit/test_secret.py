from __future__ import annotations

import json
import os
import pickle
import subprocess
from pathlib import Path

import pytest

from chain.errors import ChainError, ExitCode
from chain.secret import MOST_BYTES, MOST_BYTES_OF_DOCUMENT, Secret, read_secret

VALUE = "correct horse battery"


def test_a_secret_never_shows_itself() -> None:
    secret = Secret(VALUE)
    shown = [str(secret), repr(secret), f"{secret}", f"{secret!r}", "%s" % secret, repr([secret]), repr({"a": secret})]  # noqa: UP031 - the old way is one of those tried
    assert not [text for text in shown if "horse" in text]
    assert secret.reveal() == VALUE


def test_a_document_has_many_lines_and_may_be_large(tmp_path: Path) -> None:
    file = tmp_path / "provider.ovpn"
    text = "client\n" + "#" * MOST_BYTES + "\n"
    file.write_text(text)
    assert read_secret(file, document=True).reveal() == text.removesuffix("\n")
    file.write_bytes(b"#" * (MOST_BYTES_OF_DOCUMENT + 1))
    with pytest.raises(ChainError, match="larger than"):
        read_secret(file, document=True)
    file.write_text("CHANGE-ME\n")
    with pytest.raises(ChainError, match="CHANGE-ME"):
        read_secret(file, document=True)


def test_a_secret_is_neither_pickled_nor_made_json() -> None:
    with pytest.raises(TypeError, match="not pickled") as refused:
        pickle.dumps(Secret(VALUE))
    assert VALUE not in str(refused.value)
    with pytest.raises(TypeError) as not_json:
        json.dumps({"key": Secret(VALUE)})
    assert VALUE not in str(not_json.value)


def test_a_secret_has_no_attributes_to_list() -> None:
    with pytest.raises(TypeError):
        vars(Secret(VALUE))


def test_secrets_are_equal_by_value_and_never_equal_to_text() -> None:
    assert Secret("a") == Secret("a") != Secret("b")
    assert len({Secret("a"), Secret("a"), Secret("b")}) == 2
    assert Secret("a") != "a"


@pytest.mark.parametrize(
    ("content", "value"),
    [
        (b"word\n", "word"),
        (b"word", "word"),
        (b"word\r\n", "word"),
        (b" a word with blanks around it \n", " a word with blanks around it "),
        ("pa$$wörd \"'\\#{}\n".encode(), "pa$$wörd \"'\\#{}"),
        (b"# no comment\n", "# no comment"),
        (b"CHANGE-ME-not\n", "CHANGE-ME-not"),
    ],
)
def test_one_line_break_at_the_end_is_not_part_of_the_value(tmp_path: Path, content: bytes, value: str) -> None:
    file = tmp_path / "password"
    file.write_bytes(content)
    assert read_secret(file).reveal() == value


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "empty"),
        (b"\n", "empty"),
        (b"CHANGE-ME\n", "still says CHANGE-ME"),
        (b" CHANGE-ME ", "still says CHANGE-ME"),
        (b"one horse\ntwo\n", "more than one line"),
        (b"horse\n\n", "more than one line"),
        (b"horse\0", "more than one line"),
        (b"horse \xff\xfe", "not UTF-8"),
    ],
)
def test_what_can_not_be_a_secret_is_refused_without_being_shown(tmp_path: Path, content: bytes, what: str) -> None:
    file = tmp_path / "password"
    file.write_bytes(content)
    with pytest.raises(ChainError, match=what) as refused:
        read_secret(file)
    assert refused.value.code is ExitCode.CONFIG
    assert "horse" not in str(refused.value)
    assert refused.value.__context__ is None or refused.value.__suppress_context__  # which a traceback would print


def test_a_missing_file_and_a_folder_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(ChainError, match="missing"):
        read_secret(tmp_path / "nowhere")
    with pytest.raises(ChainError, match="directory"):
        read_secret(tmp_path)


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(ChainError, match="no regular file"):
            read_secret(path)
    (tmp_path / "large").write_text("x" * (MOST_BYTES + 1))
    with pytest.raises(ChainError, match=f"larger than {MOST_BYTES} bytes"):
        read_secret(tmp_path / "large")


def test_the_readmes_way_of_writing_secrets_keeps_them_as_they_are_and_to_their_owner(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "README.md").read_text()
    begin = text.index("bash -c '")
    script = text[begin : text.index("\n```", begin)]
    values = {
        "vpn_server_ip": "192.0.2.7",
        "vpn_username": "DOMAIN\\user",
        "vpn_ipsec_psk": " 'a' \"b\" $HOME ",
        "vpn_password": "-n %s #",
    }
    (tmp_path / "secrets").mkdir()
    typed = "".join(f"{value}\n" for value in values.values())
    subprocess.run(["sh", "-c", script], input=typed, cwd=tmp_path, text=True, check=True, capture_output=True)
    for name, value in values.items():
        file = tmp_path / "secrets" / name
        assert read_secret(file) == Secret(value)
        assert file.stat().st_mode & 0o777 == 0o600
    assert "echo 'the" not in text  # a value on a command line is in the shell's history

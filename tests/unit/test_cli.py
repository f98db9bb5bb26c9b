"""The command itself, as a program. What its functions do is tested where they stand."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from chain import __version__, cli
from chain.errors import ExitCode

if TYPE_CHECKING:
    from chain.api.project import Project


def chain(*arguments: str, folder: Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "chain", *arguments],
        cwd=folder,
        env={"PYTHONPATH": str(cli.__file__).removesuffix("/chain/cli.py"), "DOCKER_HOST": "unix:///nowhere"},
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_the_version(tmp_path: Path) -> None:
    done = chain("--version", folder=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"chain {__version__}\n", "")


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["client", "add"], ["exit", "test"], ["exit", "test", "paris", "--wait", "-1"]]
)
def test_a_wrong_command_line_is_2(arguments: list[str], tmp_path: Path) -> None:
    done = chain(*arguments, folder=tmp_path)
    assert (done.returncode, done.stdout) == (ExitCode.USAGE, "")
    assert "Usage" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_file_is_3_and_says_where_to_get_one(tmp_path: Path) -> None:
    done = chain("up", folder=tmp_path)
    assert (done.returncode, done.stdout) == (ExitCode.CONFIG, "")
    assert done.stderr == (
        "error: chain.yaml: neither config/chain.yaml nor chain.yaml is in this folder\n"
        "    → name the file with -f, or copy one of config.example/ to config/chain.yaml\n"
    )
    assert chain("render", "-f", "none.yaml", folder=tmp_path).returncode == ExitCode.CONFIG


def test_no_engine_is_4_and_missing_secrets_come_before_it(project: Project) -> None:
    assert chain("up", folder=project.root).returncode == ExitCode.CONFIG
    done = chain("status", folder=project.root)
    assert done.returncode == ExitCode.ENGINE
    assert done.stderr.startswith("error: Docker engine at unix:///nowhere: it does not answer\n")
    assert "Traceback" not in done.stderr


def test_the_doctor_goes_on_past_a_missing_engine_and_a_broken_file(project: Project, tmp_path: Path) -> None:
    done = chain("doctor", "--json", folder=project.root)
    found = json.loads(done.stdout)["findings"]
    assert done.returncode == ExitCode.CONFIG  # its secrets are missing
    assert {"configuration", "secrets", "folder", "engine", "entry.port"} <= {finding["name"] for finding in found}
    assert all(sorted(finding) == ["fix", "found", "level", "name", "why"] for finding in found)
    done = chain("doctor", folder=tmp_path)
    assert done.returncode == ExitCode.CONFIG
    lines = done.stdout.splitlines()
    assert lines[0].startswith("fail       configuration: chain.yaml: neither config/chain.yaml nor")
    assert lines[2].startswith("           fix: name the file with -f")
    assert "unchecked  entry.port: the engine can't be asked" in lines
    # How many depends on the machine: it may have neither Compose nor buildx.
    assert lines[-1].startswith(f"{sum(line.startswith('fail ') for line in lines)} failed, ")
    assert "Traceback" not in done.stderr


def test_render_and_the_list_of_clients_need_no_engine(project: Project) -> None:
    done = chain("render", "--json", folder=project.root)
    assert (done.returncode, done.stderr) == (0, "")
    files = json.loads(done.stdout)["files"]
    assert [file.rpartition("run/")[2] for file in files] == [
        "entry/state.json",
        "exits/paris/settings.json",
        "compose.yaml",
    ]
    assert json.loads(chain("client", "list", "--json", folder=project.root).stdout) == {"clients": []}


def test_exits_are_looked_at_without_an_engine(project: Project) -> None:
    assert "wireguard: An exit through" in chain("exit", "kinds", folder=project.root).stdout
    (found,) = json.loads(chain("exit", "list", "--json", folder=project.root).stdout)["exits"]
    assert (found["name"], found["groups"]) == ("paris", ["default"])
    shown = chain("exit", "show", "paris", folder=project.root).stdout.splitlines()
    assert shown[:2] == ["name: paris", "kind: l2tp"]
    assert "secret vpn_password: secrets/paris_vpn_password (not there)" in shown
    done = chain("exit", "remove", "paris", folder=project.root)
    assert (done.returncode, "it is the only one" in done.stderr) == (3, True)


def test_a_script_gets_errors_as_json(tmp_path: Path) -> None:
    done = chain("status", "--json", "-f", "nowhere.yaml", folder=tmp_path)
    assert done.returncode == ExitCode.CONFIG
    found = json.loads(done.stdout)["error"]
    assert found["code"] == ExitCode.CONFIG
    assert [sorted(problem) for problem in found["problems"]] == [["hint", "what", "where"]]
    assert "nowhere.yaml: no such file" in done.stderr


def test_the_file_may_be_named_before_the_command(project: Project, tmp_path: Path) -> None:
    before = chain("-f", str(project.file), "client", "list", folder=tmp_path)
    behind = chain("client", "list", "-f", str(project.file), folder=tmp_path)
    assert (before.returncode, before.stdout) == (behind.returncode, behind.stdout)
    assert before.returncode == 0


COMPLETED = {
    "chain cl": "client",
    "chain client sh": "show",
    "chain client show ": "phone tablet",
    "chain client remove ta": "tablet",
    "chain logs ": "entry exit-paris",
    "chain -f config/chain.yaml logs exit": "exit-paris",
    "chain logs -f nowhere.yaml exit": "",
    "chain client add laptop --group ": "default",
    "chain exit test ": "paris",
}
# Asks for what the Tab key asks for, in each line that it is given.
BASH = r"""
source <(chain --show-completion)
function=$(complete -p chain | grep -o -- "-F [^ ]*")
while IFS= read -r line; do
    IFS=' ' read -ra COMP_WORDS <<<"$line"
    if [[ $line == *" " ]]; then COMP_WORDS+=(""); fi
    COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
    "${function#-F }" chain </dev/null
    echo "${COMPREPLY[*]}"
done
"""


def test_bash_completes_commands_and_names(project: Project) -> None:
    with project.file.open("a") as file:
        file.write("clients: {phone: , tablet: }\n")
    done = subprocess.run(
        ["bash", "--norc", "-c", BASH],
        cwd=project.root,
        env={"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        input="".join(f"{line}\n" for line in COMPLETED),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (dict(zip(COMPLETED, done.stdout.splitlines(), strict=True)), done.stderr) == (COMPLETED, "")


def test_an_interrupted_command_says_that_it_can_be_repeated(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_print_json", interrupt)
    monkeypatch.setattr(sys, "argv", ["chain", "schema"])
    assert cli.run() == 130
    assert capsys.readouterr() == ("", "\ninterrupted; the same command goes on from here\n")


def test_what_can_not_be_measured_is_a_wrong_command_line(project: Project) -> None:
    for option, value in (("--url", "ftp://files.example/"), ("--whoami", "me")):
        done = chain("exit", "test", "paris", option, value, folder=project.root)
        assert (done.returncode, done.stdout) == (ExitCode.USAGE, "")
        assert done.stderr.startswith(f"error: {option}: ")


def test_a_url_can_be_kept_from_process_lists(project: Project) -> None:
    command = ("exit", "test", "paris", "--url", "-")
    for given in ("", "\n", "ftp://files.example/\n", "http://files.example/a b\nhttp://files.example/\n"):
        done = chain(*command, folder=project.root, stdin=given)
        assert (done.returncode, done.stdout) == (ExitCode.USAGE, "")
        assert done.stderr.startswith("error: --url: it ")
    done = chain(*command, folder=project.root, stdin="http://files.example/large?token=secret\n")
    assert done.returncode == ExitCode.ENGINE  # which is looked for later
    assert "token" not in done.stderr


def test_a_test_of_an_exit_is_printed_in_lines(capsys: pytest.CaptureFixture[str]) -> None:
    found: dict[str, Any] = {
        "name": "paris",
        "kind": "l2tp",
        "through": ["oslo"],
        "alone": True,
        "outside": {"address": "203.0.113.9", "asked": "1.1.1.1", "why": ""},
        "latency": {
            "target": "10.0.0.1",
            "asked": 10,
            "answered": 9,
            "median_ms": 2.5,
            "min_ms": 1.0,
            "max_ms": 30.25,
        },
        "mtu": {"computed": 1404, "tunnel": 1280, "fits": 1280, "why": ""},
        "download": {"url": "…", "bytes": 20_000_000, "seconds": 1.6, "bytes_per_second": 12_500_000, "why": ""},
    }
    cli._print_tried(found)
    assert capsys.readouterr().out.splitlines() == [
        "exit: paris (l2tp), by itself",
        "through: oslo",
        "address outside: 203.0.113.9",
        "latency: 2.5 ms, between 1.0 and 30.25 ms; 9 of 10 answered (10.0.0.1 asked)",
        "mtu: 1404 computed, 1280 negotiated; packets of 1280 bytes pass",
        "throughput: 100.0 Mbit/s (20 MB in 1.6 s)",
    ]
    found["through"], found["alone"] = [], False
    found["outside"] = {"address": None, "asked": "1.1.1.1", "why": "1.1.1.1 gave no answer"}
    found["mtu"] = {"computed": 1404, "tunnel": 1404, "fits": None, "why": "10.0.0.1 answers no large pings"}
    found["download"] |= {"bytes_per_second": None, "why": "Connection refused"}
    cli._print_tried(found)
    said = capsys.readouterr().out.splitlines()
    assert (said[0], said[1]) == (
        "exit: paris (l2tp), as it runs in the chain",
        "address outside: not known, 1.1.1.1 gave no answer",
    )
    assert said[-2:] == [
        "mtu: 1404 computed; not measured, 10.0.0.1 answers no large pings",
        "throughput: not measured, Connection refused",
    ]
    found["mtu"] = {"computed": 1500, "tunnel": None, "fits": None, "why": "there is no tunnel"}
    cli._print_tried(found | {"download": None})
    assert capsys.readouterr().out.splitlines()[-1] == "mtu: not applicable, there is no tunnel"


L2TP = "Server: l2tp.example.com\nPSK: hunter2\nUser: ann\n"


def given(text: str, *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the command with a text by standard input."""
    return subprocess.run(
        [sys.executable, "-m", "chain", "exit", "add", *arguments, "--from", "-"],
        cwd=folder,
        env={"PYTHONPATH": str(cli.__file__).removesuffix("/chain/cli.py"), "DOCKER_HOST": "unix:///nowhere"},
        input=text,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_an_exit_is_added_from_standard_input(project: Project) -> None:
    done = given(L2TP, "oslo", folder=project.root)
    assert (done.returncode, done.stdout) == (ExitCode.CONFIG, "")
    assert done.stderr.startswith(
        "error: secrets/oslo_vpn_password: the input leaves it out: the password (exit oslo)\n"
    )
    before = project.file.read_text()
    done = given(L2TP + "Password: hunter3\n", "oslo", "--dry-run", "--json", folder=project.root)
    found = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (0, "")
    assert [(exit_["name"], exit_["kind"], exit_["settings"]) for exit_ in found["exits"]] == [
        ("oslo", "l2tp", {"server": "l2tp.example.com"})
    ]
    assert (found["warnings"], found["left"], found["dry_run"]) == ([], [], True)
    assert "hunter" not in done.stdout
    assert project.file.read_text() == before
    done = given(L2TP + "Password: hunter3\n", "oslo", folder=project.root)
    assert done.stdout == (
        "Added oslo to chain.yaml:\n"
        "  oslo:\n"
        "    kind: l2tp\n"
        "    server: l2tp.example.com\n"
        "  secret vpn_ipsec_psk: secrets/oslo_vpn_ipsec_psk\n"
        "  secret vpn_username: secrets/oslo_vpn_username\n"
        "  secret vpn_password: secrets/oslo_vpn_password\n"
    )
    assert done.stderr == "`chain up` applies it to a running chain.\n"
    assert (project.secrets / "oslo_vpn_password").read_text() == "hunter3\n"


def test_of_a_list_of_links_one_is_asked_for(project: Project) -> None:
    links = "trojan://hunter2@a.example.com:443#one\nhysteria2://x\ntrojan://hunter3@b.example.com:443#two\n"
    done = given(links, "oslo", folder=project.root)
    assert done.returncode == ExitCode.CONFIG
    assert done.stderr == (
        "error: standard input: it holds 3 exits\n"
        "    → add `--pick` with a number, a name, or all\n"
        "\n"
        "   1  one\n"
        "   2  can't be taken: this is a link for Hysteria, which is not read\n"
        "   3  two\n"
    )
    done = given(links, "oslo", "--pick", "all", folder=project.root)
    assert done.returncode == 0
    assert "Added oslo-1 to chain.yaml:" in done.stdout
    assert "left out: standard input: number 2: the link: this is a link for Hysteria" in done.stderr
    assert "hunter" not in done.stdout + done.stderr


ASKS = """\
import os, pty, sys
child, terminal = pty.fork()
if child == 0:
    os.execv(sys.executable, [sys.executable, "-m", "chain", "exit", "add", "oslo", "--from", "mail.txt"])
said = b""
while b"the password: " not in said:
    said += os.read(terminal, 1024)
os.write(terminal, b"hunter3\\n")
try:
    while part := os.read(terminal, 1024):
        said += part
except OSError:  # how the end of a terminal shows
    pass
sys.stdout.write(said.decode())
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_on_a_terminal_what_is_left_out_is_asked_for_and_not_shown(project: Project) -> None:
    (project.root / "mail.txt").write_text(L2TP)
    done = subprocess.run(
        [sys.executable, "-c", ASKS],
        cwd=project.root,
        env={"PYTHONPATH": str(cli.__file__).removesuffix("/chain/cli.py"), "TERM": "dumb"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "oslo: the password: " in done.stdout
    assert "hunter" not in done.stdout
    assert (project.secrets / "oslo_vpn_password").read_text() == "hunter3\n"

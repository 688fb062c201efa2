"""What was found of each guest as JUnit XML, the form that CI systems read: junit=FILE.

A suite a guest, a case a check, and one for the command itself. There is no standard: the elements
and attributes are those that Jenkins and GitLab read (GitLab's page "Unit test reports").
"""

import re
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

# what no XML may hold (XML 1.0, 2.2), and lone halves of a surrogate pair
_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_MOST = 8000  # characters of a text that a guest may have made
_Facts = Mapping[str, Any]


def render(command: str, guests: Mapping[str, _Facts], seconds: float) -> bytes:
    """The file of a command that was about these guests; "" is what was about none."""
    root = ET.Element("testsuites", name=f"doit {command}", time=f"{seconds:.3f}")
    for name, facts in guests.items():
        root.append(_suite(command, name or "pipeline", facts, seconds))
    for key in ("tests", "failures"):
        root.set(key, str(sum(int(suite.get(key, "0")) for suite in root)))
    root.set("errors", "0")
    ET.indent(root)
    report: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return report + b"\n"


def _suite(command: str, guest: str, facts: _Facts, seconds: float) -> ET.Element:
    suite = ET.Element("testsuite", name=guest)
    classname = f"{guest}.{command.replace(' ', '-')}"
    seen: Counter[str] = Counter()
    for finding in facts.get("findings", ()):
        name = " ".join(filter(None, (finding["code"], finding["subject"])))
        seen[name] += 1  # of two with one name GitLab shows the first
        name += f" ({seen[name]})" if seen[name] > 1 else ""
        case = ET.SubElement(suite, "testcase", classname=classname, name=_text(name))
        _judge(case, finding)
    verdict = ET.SubElement(suite, "testcase", classname=classname, name=f"doit {command}")
    verdict.set("time", f"{seconds:.3f}")
    for failure in facts.get("failures", ()):
        _fail(verdict, failure)
    suite.set("tests", str(len(suite)))
    for key, element in (("failures", "failure"), ("skipped", "skipped")):
        suite.set(key, str(sum(case.find(element) is not None for case in suite)))
    suite.set("errors", "0")
    suite.set("time", f"{seconds:.3f}")
    return suite


def _judge(case: ET.Element, finding: _Facts) -> None:
    if finding["level"] == "error":
        _fail(case, finding)
    elif finding["level"] == "skipped":
        ET.SubElement(case, "skipped", message=_text(finding["message"]))
    else:
        warns = finding["level"] == "warning"
        said = (
            [f"warning: {finding['message']}", finding["hint"]] if warns else [finding["message"]]
        )
        ET.SubElement(case, "system-out").text = _lines(said)


def _fail(case: ET.Element, finding: _Facts) -> None:
    failure = ET.SubElement(case, "failure", type="failed", message=_text(finding["message"]))
    told = {key: finding[key] for key in ("expected", "seen", "hint", "source") if finding[key]}
    failure.text = _lines([finding["message"], *(f"{key}: {said}" for key, said in told.items())])


def _lines(texts: Sequence[str]) -> str:
    return "\n".join(_text(text) for text in texts if text)


def _text(text: str) -> str:
    """What an XML file can hold, and not more than one wants to read."""
    shown = text if len(text) <= _MOST else f"{text[: _MOST // 2]}\n...\n{text[-_MOST // 2 :]}"
    return _FORBIDDEN.sub(lambda found: ascii(found[0])[1:-1], shown)

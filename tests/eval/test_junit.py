from __future__ import annotations

import math
from pathlib import Path

import pytest

from gptcli.eval.junit import junit_xml, write_junit
from gptcli.scoring.evaluations import Evaluation
from gptcli.scoring.gates import judge, parse_gate

etree = pytest.importorskip("lxml.etree")

# What Ant's JUnitReport, and the CI systems that took its form over, ask of a document.
SCHEMA = """\
<xs:schema xmlns:xs="http://www.w3.org/2001/XMLSchema">
  <xs:simpleType name="named"><xs:restriction base="xs:token"><xs:minLength value="1"/></xs:restriction></xs:simpleType>
  <xs:simpleType name="moment">
    <xs:restriction base="xs:dateTime"><xs:pattern value="\\d{4}-\\d\\d-\\d\\dT\\d\\d:\\d\\d:\\d\\d"/></xs:restriction>
  </xs:simpleType>
  <xs:complexType name="fault">
    <xs:simpleContent>
      <xs:extension base="xs:string">
        <xs:attribute name="message" type="xs:string"/>
        <xs:attribute name="type" type="xs:string" use="required"/>
      </xs:extension>
    </xs:simpleContent>
  </xs:complexType>
  <xs:complexType name="property">
    <xs:attribute name="name" type="named" use="required"/>
    <xs:attribute name="value" type="xs:string" use="required"/>
  </xs:complexType>
  <xs:complexType name="properties">
    <xs:sequence><xs:element name="property" type="property" minOccurs="0" maxOccurs="unbounded"/></xs:sequence>
  </xs:complexType>
  <xs:complexType name="case">
    <xs:choice minOccurs="0">
      <xs:element name="skipped"/>
      <xs:element name="error" type="fault"/>
      <xs:element name="failure" type="fault"/>
    </xs:choice>
    <xs:attribute name="name" type="xs:token" use="required"/>
    <xs:attribute name="classname" type="xs:token" use="required"/>
    <xs:attribute name="time" type="xs:decimal" use="required"/>
  </xs:complexType>
  <xs:complexType name="suite">
    <xs:sequence>
      <xs:element name="properties" type="properties"/>
      <xs:element name="testcase" type="case" minOccurs="0" maxOccurs="unbounded"/>
      <xs:element name="system-out" type="xs:string"/>
      <xs:element name="system-err" type="xs:string"/>
    </xs:sequence>
    <xs:attribute name="name" type="named" use="required"/>
    <xs:attribute name="package" type="xs:token" use="required"/>
    <xs:attribute name="id" type="xs:int" use="required"/>
    <xs:attribute name="timestamp" type="moment" use="required"/>
    <xs:attribute name="hostname" type="named" use="required"/>
    <xs:attribute name="tests" type="xs:int" use="required"/>
    <xs:attribute name="failures" type="xs:int" use="required"/>
    <xs:attribute name="errors" type="xs:int" use="required"/>
    <xs:attribute name="skipped" type="xs:int"/>
    <xs:attribute name="time" type="xs:decimal" use="required"/>
  </xs:complexType>
  <xs:element name="testsuites">
    <xs:complexType>
      <xs:sequence><xs:element name="testsuite" type="suite" minOccurs="0" maxOccurs="unbounded"/></xs:sequence>
    </xs:complexType>
  </xs:element>
</xs:schema>
"""

FIGURES = {"loss": 2.5, "bits_per_byte": 1.8, "broken": math.nan, 'odd <&"\x0b\x1b[31m\ud800\ufffe>': 1.0, " \t": 2.0}
GATES = ("loss > 2", "bits_per_byte > 1.9", "chat_loss > 1", "broken > 1", "loss > baseline")


def written(figures: dict[str, float] = FIGURES) -> bytes:
    records = {"created": "2026-01-02T03:04:05Z", "seconds": 12.25}
    measured = Evaluation('ba"se & <co>', figures, model="runs/x\x00", records=records)
    outcomes = judge([parse_gate(gate) for gate in GATES], measured, Evaluation("old", {"ece": 1.0}))
    return junit_xml(measured, outcomes)


def test_it_validates_against_the_schema() -> None:
    schema = etree.XMLSchema(etree.fromstring(SCHEMA))
    document = etree.fromstring(written())
    schema.assertValid(document)
    for attribute in ("name", "timestamp", "errors"):  # the schema does refuse
        broken = etree.fromstring(written())
        del broken[0].attrib[attribute]
        assert not schema.validate(broken)


def test_a_gate_is_a_case() -> None:
    (suite,) = etree.fromstring(written())
    counts = {name: suite.get(name) for name in ("tests", "failures", "errors", "skipped", "time", "timestamp")}
    assert counts == {
        "tests": "5",
        "failures": "2",
        "errors": "2",
        "skipped": "0",
        "time": "12.250",
        "timestamp": "2026-01-02T03:04:05",
    }
    cases = suite.findall("testcase")
    assert [case.get("name") for case in cases] == [f"fail if {gate}" for gate in GATES]
    assert [[found.tag for found in case] for case in cases] == [["failure"], [], ["error"], ["failure"], ["error"]]
    assert cases[0][0].get("message") == "loss is 2.5, fails if loss > 2"
    assert cases[4][0].get("message") == "the baseline old has no such figure"
    assert cases[1].get("classname") == 'gptcli.eval.ba"se & <co>'


def test_what_xml_forbids_is_escaped() -> None:
    properties = {each.get("name"): each.get("value") for each in etree.fromstring(written())[0].find("properties")}
    assert properties == {
        "model": "runs/x\\x00",
        "loss": "2.5",
        "bits_per_byte": "1.8",
        "broken": "nan",
        'odd <&"\\x0b\\x1b[31m\\ud800\\ufffe>': "1",
        "-": "2",
    }


def test_the_same_outcomes_are_the_same_bytes(tmp_path: Path) -> None:
    measured = Evaluation("base", {"loss": 2.5})
    outcomes = judge([parse_gate("loss > 2")], measured)
    write_junit(tmp_path / "reports" / "gates.xml", measured, outcomes)
    write_junit(tmp_path / "reports" / "gates.xml", measured, outcomes)
    assert (tmp_path / "reports" / "gates.xml").read_bytes() == junit_xml(measured, outcomes)
    assert [path.name for path in (tmp_path / "reports").iterdir()] == ["gates.xml"]


def test_others_read_it(tmp_path: Path) -> None:
    junitparser = pytest.importorskip("junitparser")
    (tmp_path / "gates.xml").write_bytes(written())
    (suite,) = junitparser.JUnitXml.fromfile(str(tmp_path / "gates.xml"))
    assert (suite.tests, suite.failures, suite.errors) == (5, 2, 2)
    kinds = [type(case.result[0]).__name__ if case.result else "passed" for case in suite]
    assert kinds == ["Failure", "passed", "Error", "Failure", "Error"]

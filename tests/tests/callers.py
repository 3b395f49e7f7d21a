"""What the tests of HTTP in http.rs ask of others: a TLS client with a certificate, and the parser of Prometheus.

    callers.py tls HOST PORT PKI NAME PATH     the answer's status and body; NAME of "-": no certificate
    callers.py metrics FILE GRAFANA            what was scraped parses; the dashboard asks for nothing else
"""

import http.client
import json
import re
import ssl
import sys


def tls(host, port, pki, name, path):
    context = ssl.create_default_context(cafile=f"{pki}/ca.pem")
    if name != "-":
        context.load_cert_chain(f"{pki}/{name}/cert.pem", f"{pki}/{name}/key.pem")
    connection = http.client.HTTPSConnection(host, int(port), context=context, timeout=60)
    connection.request("GET", path)
    answer = connection.getresponse()
    print(answer.status, answer.read().decode())


def metrics(file, grafana):
    from prometheus_client.openmetrics.parser import text_string_to_metric_families

    families = list(text_string_to_metric_families(open(file).read()))
    samples = {sample.name for family in families for sample in family.samples}
    assert len(samples) > 20, samples
    for family in families:
        assert family.documentation, f"{family.name} says nothing"
        assert re.fullmatch(r"vendue_[a-z_]+", family.name), family.name
        for sample in family.samples:
            assert family.type != "counter" or sample.name.endswith("_total"), sample.name
    panels = json.load(open(grafana))["panels"]
    asked = {name for panel in panels for target in panel["targets"] for name in re.findall(r"vendue_\w+", target["expr"])}
    assert asked and not asked - samples, f"nobody tells of {asked - samples}"
    assert not samples - asked - {"vendue_dry_run"}, f"the dashboard leaves out {samples - asked}"
    print(len(samples))


{"tls": tls, "metrics": metrics}[sys.argv[1]](*sys.argv[2:])

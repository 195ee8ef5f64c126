"""Defaults and limits are written in one place, and the page about them says the same."""
import re

from installed import SOURCE


FILES = "".join((SOURCE / path).read_text() for path in ("src/box/limits.h", "src/store/limits.h", "src/volume/share/limits.h", "src/audit/limits.h",
                                                      "src/net/policy/limits.h", "src/net/peek/limits.h", "src/net/dns/limits.h", "src/net/proxy/limits.h",
                                                      "src/net/space/limits.h", "src/net/relay/limits.h"))


def test_the_page_lists_what_the_code_has():
    code = dict(re.findall(r"inline constexpr [\w:]+ (k\w+)(?:\{| = )([\w]+)", FILES))
    page = dict(re.findall(r"\| `(k\w+)` \| (\w+)(?: ms)? \|", (SOURCE / "docs/limits.md").read_text()))
    assert len(code) > 10
    assert page == code

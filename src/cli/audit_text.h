// How entries of the journal are written for people and for programs. Pure functions.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"
#include "caisson/audit.h"

namespace caisson::cli {

// One line, with its end, of printable ASCII: {"chain":…,"seq":…,"time":…,"kind":…,"box":…,"name":…,"uid":…,"pid":…,
// "process":…,"details":{…},"prev":…,"hash":…}.
std::string audit_json_line(const AuditEvent& event);
// "TIME  KIND  NAME (ID)  key=value …" without its end, fit for a terminal. `full`: with who did it and the entry's sequence.
std::string audit_text_line(const AuditEvent& event, bool full);

// "SEQUENCE:HASH", as `audit head` prints it. kUsage otherwise.
Result<AuditHead> parse_audit_head(std::string_view text);
std::string audit_head_text(const AuditHead& head);

}  // namespace caisson::cli

// Between fork and exec of a command: joining the container, becoming its user, finding the program.
#pragma once

#include <string>

#include "agent/container.h"
#include "base/bytes.h"
#include "wire/agent.pb.h"

namespace caisson::agent {

struct LaunchPlan {
    const Container* container;
    int standard[3];  // become 0, 1, 2
    bool terminal;    // standard[0] is a terminal: it becomes the controlling one
    int report;       // writing end of a close-on-exec pipe
    int order = -1;   // see launch_later()
};

// What comes through the report pipe: first the process's id as it sees itself, then nothing more if the exec
// succeeded, else why it did not.
struct LaunchReport {
    std::int32_t pid = 0;
    bool failed = false;
    wire::StartFailed::Kind kind = wire::StartFailed::OTHER;
    int error_number = 0;
    std::string message;
};
LaunchReport parse_launch_report(base::ByteView bytes);
inline constexpr std::size_t kMaxReportBytes = 2048;

// Both run in the child and never return.
[[noreturn]] void launch(const LaunchPlan& plan, const wire::Exec& exec);
// Joins the container at once, gives up what no command may have, reads who the image's users are, reports its id, and
// reads only then which command it is to become: an order from the pipe `order`, up to its end. Without one it just ends.
[[noreturn]] void launch_later(const LaunchPlan& plan);
// Whether that process can become the command: it has Docker's capabilities, which can only be made fewer, and no
// terminal.
bool fits_the_seat(const wire::Exec& exec);
// An order: `message` is a serialised wire::ToAgent that holds an Exec. `image_covered`: something was mounted over the
// image since the process sat down, so its users are to be read again.
std::string launch_order(base::ByteView message, bool image_covered);

// Which kind of failure an exec's errno is: 127 for what is not there, 126 for what cannot be executed.
wire::StartFailed::Kind exec_failure_kind(int error_number);

}  // namespace caisson::agent

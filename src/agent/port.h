// The agent's end of the virtio-serial port: sessions, frames in, frames out.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>

#include "base/bytes.h"
#include "base/result.h"
#include "os/fd.h"
#include "os/loop.h"
#include "wire/agent.pb.h"
#include "wire/frame.h"

namespace caisson::agent {

// A host that goes away, or a template that is restored by another one, ends the session: the port forgets it and looks
// for the preamble of the next. Bytes that are neither frames nor a preamble break it for good, since no host would come
// back after that.
class Port {
  public:
    struct Handlers {
        std::function<void()> session_began;  // the preamble has been answered
        std::function<Result<>(const wire::FrameView&)> frame;  // an error ends the session
        std::function<void()> session_ended;  // may come without session_began before it
        std::function<void(const Error&)> session_broken;  // the host sent nonsense; nothing follows
        std::function<void()> drained;        // backlog() has fallen below kLowWater
    };
    static constexpr std::size_t kHighWater = 256 * 1024;
    static constexpr std::size_t kLowWater = 64 * 1024;

    Port(os::Fd fd, os::Loop& loop, Handlers handlers);
    ~Port();
    Result<> start();

    // Queues for the host; flush() after each round of the loop sends.
    base::Bytes& out() { return out_; }
    void send(const wire::FromAgent& message);
    // A whole frame that need not be queued if the port takes it at once.
    void send_frame(base::ByteView frame);
    void flush();
    std::size_t backlog() const { return out_.size() - sent_; }
    // Waits until everything has been handed to the device, for the last message before a power-off.
    void flush_before_end(std::chrono::milliseconds deadline);
    // When the bytes that are being handled were read from the device.
    os::Loop::Clock::time_point read_at() const { return read_at_; }

  private:
    void readable();
    void take(std::size_t count);
    void seek(base::ByteView bytes);
    void end_session(base::ByteView unread);
    std::size_t write_some(base::ByteView bytes);

    os::Fd fd_;
    os::Loop& loop_;
    Handlers handlers_;
    wire::Decoder decoder_;
    std::optional<wire::PreambleSeeker> seeker_;  // set while no session is running
    base::Bytes out_;
    std::size_t sent_ = 0;
    bool above_low_water_ = false;
    bool broken_ = false;
    os::Loop::Clock::time_point read_at_;
};

}  // namespace caisson::agent

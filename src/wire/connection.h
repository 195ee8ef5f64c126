// Connection: frames over one non-blocking stream socket, for whoever runs an os::Loop. Reads into the decoder, queues
// what is to be sent, and tells which events to wait for. It does not own the descriptor.
#pragma once

#include <cstdint>
#include <optional>

#include "wire/frame.h"

namespace caisson::wire {

class Connection {
  public:
    explicit Connection(int fd) : fd_(fd) {}
    // Host side of an agent's port: sends the preamble with `marker` and drops everything before its echo.
    void begin_session(const Marker& marker);

    // Appends frames to this, then calls flush().
    base::Bytes& out() { return out_; }
    std::size_t queued_bytes() const { return out_.size() - sent_; }
    // Sends what the socket takes. kIo once the peer is gone.
    Result<> flush();
    // Reads what is there, at most about 128 KiB at a time. false: end of file.
    Result<bool> fill();
    // The next whole frame; its payload is valid until the next fill().
    Result<std::optional<FrameView>> next() { return decoder_.next(); }
    // EPOLLIN (if `reading`) | EPOLLOUT (if something is queued).
    std::uint32_t wanted_events(bool reading) const;
    int fd() const { return fd_; }

  private:
    int fd_;
    Decoder decoder_;
    std::optional<PreambleSeeker> seeker_;
    base::Bytes out_;
    std::size_t sent_ = 0;
};

}  // namespace caisson::wire

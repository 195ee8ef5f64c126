// Listings of directories, told by the server before the kernel asks for them (wire/share.h): the first piece when a
// directory is opened, more when one was read. What was told is thrown away when anything changes, and when company comes;
// the server counted its lookups, and hears that they are over.
//
// Not thread-safe; bytes in, bytes out.
#pragma once

#include <linux/fuse.h>

#include <chrono>
#include <cstdint>
#include <deque>
#include <unordered_map>
#include <utility>

#include "agent/kept.h"
#include "base/bytes.h"
#include "wire/share.h"

namespace caisson::agent {

class ShareListings {
  public:
    using Clock = std::chrono::steady_clock;
    // For those who change a volume's directory without caisson.
    static constexpr std::chrono::seconds kKeptFor{1};
    static constexpr std::size_t kMost = 64;  // directories that are being listed: each keeps some 20 KiB

    enum class Way {
        kAnswered,
        kWaits,  // for what the server was asked for already; the answer is in take_answer(), or the request in take_requests()
        kToServer,
    };
    // A whole READDIR or READDIRPLUS of the kernel's. What it is told is appended to `answer`.
    Way read(base::ByteView message, base::Bytes& answer, Clock::time_point now);
    // What the server answered to one that went there, after its header.
    void answered(std::uint64_t unique, int error, base::ByteView data);
    // What it told (ShareNews::kListed), after the header. `holds`: nothing is under way that may have changed it since.
    void told(base::ByteView data, bool holds, Clock::time_point now);
    // The directory is closed.
    void closed(std::uint64_t handle);
    // Nothing that was told holds any more.
    void clear();

    // What the kernel was given with attributes, after read() and told(): it knows those files now.
    struct Given {
        std::uint64_t directory = 0;
        base::Bytes entries;
        Clock::time_point since;
    };
    Given take_given() { return std::exchange(given_, {}); }
    // For the kernel.
    base::Bytes take_answer() { return std::exchange(answer_, {}); }
    // For the server, one behind the other.
    base::Bytes take_requests() { return std::exchange(requests_, {}); }

  private:
    struct Piece {
        std::uint64_t offset = 0, next = 0;
        bool plus = false, end = false;
        base::Bytes bytes;
        Clock::time_point since;
    };
    struct Listing {
        std::uint64_t node = 0;
        std::deque<Piece> pieces;
        // Where the last piece that was read ends, of which kind it was, and whether there is nothing behind it.
        std::uint64_t end = 0;
        bool plus = false, at_end = false;
        Clock::time_point end_since;
        bool asked = false;  // for more, and not all of it was told
        bool told = false;   // some of it was
        bool goes_well = true;  // what was told was of use until now
        std::uint32_t pieces_next = kFirstPieces;  // to ask for
        base::Bytes waits;  // a request of the kernel's
    };
    struct Reading {
        std::uint64_t handle = 0;
        bool plus = false, beginning = false;
    };
    static constexpr std::uint32_t kFirstPieces = 2;

    bool answer_from_told(Listing& listing, const fuse_in_header& header, const fuse_read_in& in, base::Bytes& answer, Clock::time_point now);
    void ask(std::uint64_t handle, Listing& listing, std::uint64_t offset, bool plus);
    Listing& listing_of(std::uint64_t handle);
    void drop(Listing& listing);
    void forget(const Piece& piece);
    void go_on_to_server(const fuse_in_header& header, const fuse_read_in& in);
    void send_on(Listing& listing);

    Kept<std::uint64_t, Listing> listings_{kMost};  // by their handles
    std::unordered_map<std::uint64_t, Reading> reading_;  // requests that went to the server
    base::Bytes answer_, requests_;
    Given given_;
};

}  // namespace caisson::agent

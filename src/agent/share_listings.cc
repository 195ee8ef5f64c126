#include "agent/share_listings.h"

#include <algorithm>
#include <vector>

#include "agent/share_message.h"
#include "wire/listing.h"

namespace caisson::agent {

ShareListings::Listing& ShareListings::listing_of(std::uint64_t handle) {
    return listings_.put(handle, [this](std::uint64_t, Listing& gone) { drop(gone); });
}

ShareListings::Way ShareListings::read(base::ByteView message, base::Bytes& answer, Clock::time_point now) {
    auto rest = message;
    fuse_in_header header{};
    fuse_read_in in{};
    if (!take(rest, header) || !take(rest, in)) return Way::kToServer;
    auto& listing = listing_of(in.fh);
    listing.node = header.nodeid;
    if (answer_from_told(listing, header, in, answer, now)) return Way::kAnswered;
    if (listing.asked && listing.goes_well && listing.pieces.empty() && listing.waits.empty()) {
        listing.waits.assign(message.begin(), message.end());
        return Way::kWaits;
    }
    // The kernel went another way than was thought, or late.
    if (!listing.pieces.empty()) listing.goes_well = false;
    drop(listing);
    go_on_to_server(header, in);
    return Way::kToServer;
}

void ShareListings::go_on_to_server(const fuse_in_header& header, const fuse_read_in& in) {
    reading_[header.unique] = {in.fh, header.opcode == FUSE_READDIRPLUS, in.offset == 0};
}

bool ShareListings::answer_from_told(Listing& listing, const fuse_in_header& header, const fuse_read_in& in, base::Bytes& answer, Clock::time_point now) {
    const bool plus = header.opcode == FUSE_READDIRPLUS;
    if (listing.at_end && listing.end == in.offset && now - listing.end_since <= kKeptFor) {
        put_answer(answer, header, 0);
        return true;
    }
    if (listing.pieces.empty()) return false;
    const auto& first = listing.pieces.front();
    if (first.offset != in.offset || first.plus != plus || first.bytes.size() > in.size || now - first.since > kKeptFor) return false;
    put_answer(answer, header, 0, first.bytes);
    if (plus) given_ = {header.nodeid, std::move(listing.pieces.front().bytes), first.since};
    listing.at_end = first.end;
    listing.end = first.next;
    listing.plus = plus;
    listing.end_since = first.since;
    listing.pieces.pop_front();
    const bool is_end = listing.pieces.empty() ? listing.at_end : listing.pieces.back().end;
    const auto next = listing.pieces.empty() ? listing.end : listing.pieces.back().next;
    // How it goes on behind the beginning is not known: with attributes if somebody wants those.
    if (listing.pieces.size() <= 1 && !is_end && in.offset != 0) ask(in.fh, listing, next, plus);
    return true;
}

void ShareListings::ask(std::uint64_t handle, Listing& listing, std::uint64_t offset, bool plus) {
    if (listing.asked || !listing.goes_well) return;
    listing.asked = true;
    listing.told = false;
    const wire::ShareList list{handle, offset, listing.pieces_next, plus ? 1u : 0u};
    auto header = wire::share_message(wire::kShareList, sizeof(fuse_in_header) + sizeof list);
    header.nodeid = listing.node;
    base::append(requests_, base::bytes_of(header));
    base::append(requests_, base::bytes_of(list));
    listing.pieces_next = std::min(2 * listing.pieces_next, wire::kShareMostPieces);
}

void ShareListings::answered(std::uint64_t unique, int error, base::ByteView data) {
    const auto found = reading_.find(unique);
    if (found == reading_.end()) return;
    const auto reading = found->second;
    reading_.erase(found);
    Listing* listing = listings_.find(reading.handle);
    if (listing == nullptr || error != 0 || data.empty() || reading.beginning || !listing->pieces.empty()) return;
    std::uint64_t next = 0;
    wire::each_listing_entry(data, reading.plus, [&](const fuse_entry_out&, const fuse_dirent& entry, std::string_view) { next = entry.off; });
    ask(reading.handle, *listing, next, reading.plus);
}

void ShareListings::told(base::ByteView data, bool holds, Clock::time_point now) {
    wire::ShareListed told{};
    if (!take(data, told)) return;
    if ((told.flags & wire::ShareListed::kDone) != 0) {
        Listing* listing = listings_.find(told.handle);
        if (listing == nullptr) return;
        listing->asked = false;
        if (!listing->told) listing->goes_well = false;
        // All was read before this came.
        if (listing->waits.empty() && listing->pieces.empty() && !listing->at_end) ask(told.handle, *listing, listing->end, listing->plus);
        return send_on(*listing);
    }
    Piece piece{told.offset, told.next, (told.flags & wire::ShareListed::kPlus) != 0, (told.flags & wire::ShareListed::kEnd) != 0,
                base::Bytes(data.begin(), data.end()), now};
    // The beginning comes unasked, before the answer that tells the handle.
    Listing* found = piece.offset == 0 ? &listing_of(told.handle) : listings_.find(told.handle);
    if (found == nullptr || (piece.offset != 0 && !found->asked)) return forget(piece);
    auto& listing = *found;
    if (!holds) listing.goes_well = false;
    if (!listing.goes_well || (!listing.pieces.empty() && listing.pieces.back().next != piece.offset)) return forget(piece);
    listing.told = true;
    listing.pieces.push_back(std::move(piece));
    if (listing.waits.empty()) return;
    base::ByteView waits(listing.waits);
    fuse_in_header header{};
    fuse_read_in in{};
    if (take(waits, header) && take(waits, in) && answer_from_told(listing, header, in, answer_, now)) listing.waits.clear();
}

// The server has to answer what waits.
void ShareListings::send_on(Listing& listing) {
    if (listing.waits.empty()) return;
    base::ByteView waits(listing.waits);
    fuse_in_header header{};
    fuse_read_in in{};
    if (take(waits, header) && take(waits, in)) go_on_to_server(header, in);
    base::append(requests_, listing.waits);
    listing.waits.clear();
}

void ShareListings::closed(std::uint64_t handle) {
    if (Listing* listing = listings_.find(handle)) drop(*listing);
    listings_.erase(handle);
}

void ShareListings::clear() {
    listings_.each([this](Listing& listing) {
        if (listing.asked || !listing.pieces.empty()) listing.goes_well = false;
        drop(listing);
    });
}

void ShareListings::drop(Listing& listing) {
    for (const auto& piece : listing.pieces) forget(piece);
    listing.pieces.clear();
    listing.at_end = false;
    send_on(listing);
}

void ShareListings::forget(const Piece& piece) {
    if (!piece.plus) return;
    std::vector<fuse_forget_one> nodes;
    wire::each_listing_entry(piece.bytes, true, [&](const fuse_entry_out& file, const fuse_dirent&, std::string_view) {
        if (file.nodeid != 0) nodes.push_back({file.nodeid, 1});
    });
    if (nodes.empty()) return;
    const fuse_batch_forget_in batch{static_cast<std::uint32_t>(nodes.size()), 0};
    const auto header = wire::share_message(FUSE_BATCH_FORGET, sizeof(fuse_in_header) + sizeof batch + nodes.size() * sizeof nodes[0]);
    base::append(requests_, base::bytes_of(header));
    base::append(requests_, base::bytes_of(batch));
    for (const auto& node : nodes) base::append(requests_, base::bytes_of(node));
}

}  // namespace caisson::agent

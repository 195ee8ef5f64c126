// What a guest made of a file in a volume. The host's inode stays what caisson made it (a regular file or a directory of
// the volume's owner, closed to everybody else); owner, mode and kind as the guest set them lie beside it in one extended
// attribute. A file without the attribute (somebody put it there from the host) is the owner's, with the host's own mode.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace caisson::volume {

inline constexpr char kMetadataAttribute[] = "user.caisson.metadata";
// Names below it are caisson's; a guest neither sees nor sets them.
inline constexpr std::string_view kOwnAttributes = "user.caisson.";

inline constexpr std::size_t kMaxMetadataBytes = 128;  // of its text

struct Metadata {
    // nullopt: whoever owns the volume, hence the box's user in every box, whatever its number is there.
    std::optional<std::uint32_t> user, group;
    std::uint32_t mode = 0;    // permissions, set-id and sticky bits (07777)
    // S_IFCHR, S_IFBLK, S_IFIFO or S_IFSOCK if the host has an empty regular file in its place; S_IFLNK if it has one that
    // holds the link's text (Linux keeps no such attributes for links; one of the owner is a link there, too); else 0.
    std::uint32_t special = 0;
    std::uint32_t device = 0;  // of a device, as the guest's kernel encodes it

    bool operator==(const Metadata&) const = default;
};

// "1 USER GROUP MODE SPECIAL DEVICE", numbers in decimal, mode and special in octal, "-" for the owner.
std::string encode(const Metadata& metadata);
// nullopt: not of that form, or with values that no guest can have set.
std::optional<Metadata> decode(std::string_view text);

}  // namespace caisson::volume

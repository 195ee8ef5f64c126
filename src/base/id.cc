#include "base/id.h"

#include <array>

namespace caisson::base {

namespace {
constexpr std::string_view kAlphabet = "0123456789abcdefghjkmnpqrstvwxyz";
}

std::string make_ulid(std::chrono::system_clock::time_point now, const std::uint8_t (&random)[10]) {
    auto ms = static_cast<std::uint64_t>(
        std::chrono::duration_cast<std::chrono::milliseconds>(now.time_since_epoch()).count());
    std::array<std::uint8_t, 16> raw{};
    for (std::size_t i = 0; i < 6; ++i) raw[i] = static_cast<std::uint8_t>(ms >> (8 * (5 - i)));
    for (std::size_t i = 0; i < 10; ++i) raw[6 + i] = random[i];
    // 26 digits of 5 bits; the first digit holds the two bits that are left over at the top.
    std::string text(26, '0');
    for (std::size_t digit = 0; digit < 26; ++digit) {
        unsigned value = 0;
        for (std::size_t bit = 0; bit < 5; ++bit) {
            std::size_t position = digit * 5 + bit;  // counted in 130 bits, of which the first two are zero
            value <<= 1;
            if (position >= 2) {
                position -= 2;
                value |= (raw[position / 8] >> (7 - position % 8)) & 1u;
            }
        }
        text[digit] = kAlphabet[value];
    }
    return text;
}

bool is_ulid(std::string_view text) {
    return text.size() == 26 && text[0] <= '7' && text.find_first_not_of(kAlphabet) == std::string_view::npos;
}

std::string make_box_name(std::uint64_t random) {
    static constexpr std::array<std::string_view, 32> kFirst{
        "amber", "brisk", "calm",  "deft",  "eager", "fair",  "glad",  "hardy", "ideal", "jolly", "keen",
        "lucid", "merry", "noble", "open",  "plain", "quick", "ready", "solid", "tidy",  "upper", "vivid",
        "warm",  "young", "zesty", "bold",  "crisp", "dry",   "even",  "firm",  "grand", "humble"};
    static constexpr std::array<std::string_view, 32> kSecond{
        "anchor", "buoy",  "crane",  "dock",  "eddy",  "ferry", "gull",  "harbor", "inlet", "jetty", "keel",
        "locks",  "mast",  "north",  "otter", "pier",  "quay",  "river", "shoal",  "tide",  "vessel", "wharf",
        "yawl",   "barge", "canal",  "delta", "estuary", "fjord", "heron", "lagoon", "marina", "reef"};
    return std::string(kFirst[random % 32]) + "-" + std::string(kSecond[(random >> 8) % 32]) + "-" +
           std::to_string(10 + (random >> 16) % 9990);
}

}  // namespace caisson::base

#include "image/registry/challenge.h"

#include <algorithm>
#include <cctype>

#include "image/limits.h"

namespace caisson::image::registry {

using base::failure;

namespace {

class Reader {
  public:
    explicit Reader(std::string_view text) : text_(text) {}

    bool at_end() const { return position_ == text_.size(); }
    char peek() const { return at_end() ? '\0' : text_[position_]; }
    bool take(char c) {
        if (peek() != c || at_end()) return false;
        ++position_;
        return true;
    }
    bool skip_spaces() {
        auto before = position_;
        while (peek() == ' ' || peek() == '\t') ++position_;
        return position_ > before;
    }
    // token of RFC 9110; "/" is let through as well, since token68 has it
    std::string token() {
        auto start = position_;
        while (!at_end() && (std::isalnum(static_cast<unsigned char>(peek())) || std::string_view("!#$%&'*+-.^_`|~/").find(peek()) != std::string_view::npos))
            ++position_;
        return std::string(text_.substr(start, position_ - start));
    }
    Result<std::string> quoted() {
        std::string value;
        while (!take('"')) {
            if (at_end()) return failure(Errc::kProtocol, "a quotation mark is missing");
            take('\\');
            if (at_end()) return failure(Errc::kProtocol, "a quotation mark is missing");
            auto c = text_[position_++];
            if (static_cast<unsigned char>(c) < ' ' || c == '\x7f') return failure(Errc::kProtocol, "it holds a control character");
            value += c;
        }
        return value;
    }
    std::size_t position() const { return position_; }
    void rewind(std::size_t position) { position_ = position; }

  private:
    std::string_view text_;
    std::size_t position_ = 0;
};

std::string lower(std::string text) {
    std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    return text;
}

}  // namespace

Result<std::vector<Challenge>> parse_challenges(std::string_view header) {
    if (header.size() > kMaxChallengeBytes) return failure(Errc::kLimit, "the registry's WWW-Authenticate header is too long");
    auto wrong = [](const std::string& why) {
        return failure(Errc::kProtocol, "the registry's WWW-Authenticate header cannot be understood: " + why);
    };
    Reader reader(header);
    std::vector<Challenge> challenges;
    std::size_t parameters = 0;
    while (true) {
        while (reader.skip_spaces() || reader.take(',')) {
        }
        if (reader.at_end()) return challenges;
        auto word = reader.token();
        if (word.empty()) return wrong("a name is missing");
        auto after_word = reader.position();
        bool space = reader.skip_spaces();
        if (reader.peek() == '=' && !reader.at_end()) {
            // A parameter of the challenge before it; "name=" at a challenge's beginning has none.
            if (challenges.empty()) return wrong("a parameter stands before the scheme");
            reader.take('=');
            reader.skip_spaces();
            std::string value;
            if (reader.take('"')) {
                auto text = reader.quoted();
                if (!text) return wrong(text.error().message);
                value = std::move(*text);
            } else {
                value = reader.token();
            }
            if (++parameters > kMaxChallengeParameters) return failure(Errc::kLimit, "the registry's WWW-Authenticate header holds too many parameters");
            if (!challenges.back().parameters.emplace(lower(word), value).second) return wrong("it gives \"" + lower(word) + "\" twice");
            reader.skip_spaces();
            if (!reader.at_end() && reader.peek() != ',') return wrong("a comma is missing");
            continue;
        }
        reader.rewind(after_word);
        if (!space && !reader.at_end() && reader.peek() != ',') return wrong("a space is missing after the scheme");
        if (challenges.size() >= kMaxChallenges) return failure(Errc::kLimit, "the registry's WWW-Authenticate header holds too many challenges");
        challenges.push_back({lower(std::move(word)), {}});
    }
}

}  // namespace caisson::image::registry

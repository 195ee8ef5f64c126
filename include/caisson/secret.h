// Secret: a password or token. Its memory is zeroed when it goes away; it cannot be printed, formatted or compared.
#pragma once

#include <string.h>

#include <string>
#include <string_view>
#include <utility>

namespace caisson {

class Secret {
  public:
    Secret() = default;
    explicit Secret(std::string_view text) { assign(text); }
    Secret(const Secret& other) { assign(other.reveal()); }
    Secret(Secret&& other) noexcept : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
    Secret& operator=(const Secret& other) {
        if (this != &other) assign(other.reveal());
        return *this;
    }
    Secret& operator=(Secret&& other) noexcept {
        std::swap(data_, other.data_);
        std::swap(size_, other.size_);
        return *this;
    }
    ~Secret() { clear(); }

    // The text itself: for whoever hands it on to its destination, never for messages, logs, files or arguments.
    std::string_view reveal() const { return {data_ == nullptr ? "" : data_, size_}; }
    bool empty() const { return size_ == 0; }
    std::size_t size() const { return size_; }
    void append(std::string_view text) {
        char* larger = new char[size_ + text.size()];
        if (size_ > 0) ::memcpy(larger, data_, size_);
        if (!text.empty()) ::memcpy(larger + size_, text.data(), text.size());
        auto size = size_ + text.size();
        clear();
        data_ = larger;
        size_ = size;
    }
    void clear() {
        if (data_ != nullptr) ::explicit_bzero(data_, size_);
        delete[] data_;
        data_ = nullptr;
        size_ = 0;
    }

  private:
    void assign(std::string_view text) {
        clear();
        append(text);
    }
    char* data_ = nullptr;
    std::size_t size_ = 0;
};

// Zeroes a string that held a secret on its way through a library that knows only strings.
inline void wipe(std::string& text) {
    ::explicit_bzero(text.data(), text.size());
    text.clear();
}

}  // namespace caisson

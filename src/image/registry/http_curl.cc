#include <curl/curl.h>

#include <string.h>

#include <algorithm>
#include <cctype>

#include "base/text.h"
#include "image/limits.h"
#include "image/registry/http.h"
#include "image/registry/proxy.h"

namespace caisson::image::registry {

using base::failure;

namespace {

constexpr long kStallBytesPerSecond = 100;
constexpr long kReceiveBytes = 256 << 10;

struct ListDeleter {
    void operator()(curl_slist* list) const {
        for (auto* item = list; item != nullptr; item = item->next)
            if (item->data != nullptr) ::explicit_bzero(item->data, ::strlen(item->data));
        curl_slist_free_all(list);
    }
};
using List = std::unique_ptr<curl_slist, ListDeleter>;

bool append(List& list, const std::string& line) {
    auto* longer = curl_slist_append(list.get(), line.c_str());
    if (longer == nullptr) return false;
    static_cast<void>(list.release());
    list.reset(longer);
    return true;
}

// One transfer: what libcurl's callbacks work on.
class Transfer {
  public:
    Transfer(const HttpRequest& request, std::string proxy) : request_(request), proxy_(std::move(proxy)) {}

    static std::size_t header(char* data, std::size_t, std::size_t count, void* self) {
        return static_cast<Transfer*>(self)->take_header({data, count}) ? count : 0;
    }
    static std::size_t body(char* data, std::size_t, std::size_t count, void* self) {
        return static_cast<Transfer*>(self)->take_body({data, count}) ? count : CURL_WRITEFUNC_ERROR;
    }

    Result<HttpAnswer> finish(CURLcode code, const char* details) {
        if (failed_) return failure(std::move(*failed_));
        if (code != CURLE_OK) return transport_failure(code, details);
        if (succeeded() && !begin_body()) return failure(std::move(*failed_));
        return std::move(answer_);
    }

  private:
    bool fail(Error error) {
        failed_ = std::move(error);
        return false;
    }
    bool fail(Errc code, std::string message) { return fail(failure(code, std::move(message)).value()); }
    bool succeeded() const { return answer_.head.status == 200 || answer_.head.status == 206; }

    bool take_header(std::string_view line) {
        header_bytes_ += line.size();
        if (header_bytes_ > kMaxHeaderBytes)
            return fail(Errc::kLimit, request_.url.authority() + " answers with more than " + base::format_size(kMaxHeaderBytes) + " of headers");
        if (line.starts_with("HTTP/")) {  // also after 100 Continue
            answer_.head = {};
            auto digits = line.substr(std::min(line.find(' ') + 1, line.size())).substr(0, 3);
            if (auto status = base::parse_u64(digits)) answer_.head.status = static_cast<int>(*status);
            return true;
        }
        auto colon = line.find(':');
        if (colon == std::string_view::npos) return true;
        std::string name(line.substr(0, colon));
        std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
        answer_.head.headers.emplace_back(std::move(name), base::trim(line.substr(colon + 1)));
        return true;
    }

    bool begin_body() {
        if (begun_ || !request_.on_head) return true;
        begun_ = true;
        if (auto fine = request_.on_head(answer_.head); !fine) return fail(std::move(fine).error());
        return true;
    }

    bool take_body(std::string_view data) {
        if (succeeded() && request_.on_data) {
            if (!begin_body()) return false;
            if (auto fine = request_.on_data(base::as_bytes(data)); !fine) return fail(std::move(fine).error());
            return true;
        }
        if (answer_.body.size() + data.size() <= request_.max_body_bytes) {
            answer_.body += data;
            return true;
        }
        if (succeeded())
            return fail(Errc::kLimit, "the answer of " + request_.url.authority() + " is larger than " + base::format_size(request_.max_body_bytes));
        // Nobody reads the rest of an error.
        if (answer_.body.size() + data.size() > kMaxErrorBodyBytes + request_.max_body_bytes)
            return fail(Errc::kLimit, "the answer of " + request_.url.authority() + " (" + std::to_string(answer_.head.status) + ") is too large");
        return true;
    }

    Result<HttpAnswer> transport_failure(CURLcode code, const char* details) const {
        std::string why = *details != '\0' ? details : curl_easy_strerror(code);
        const auto where = request_.url.authority();
        switch (code) {
            case CURLE_COULDNT_RESOLVE_PROXY:
                return failure(Errc::kNotFound, "the host name of the proxy " + proxy_ + " cannot be resolved",
                               "check HTTPS_PROXY and HTTP_PROXY, or name in NO_PROXY what needs no proxy");
            case CURLE_COULDNT_RESOLVE_HOST:
                return failure(Errc::kNotFound, "the host name " + request_.url.host + " cannot be resolved",
                               "check the name and this host's network");
            case CURLE_PEER_FAILED_VERIFICATION:
            case CURLE_SSL_ISSUER_ERROR:
                return failure(Errc::kPermission, "the certificate of " + where + " is not trusted: " + base::printable(why, 300),
                               "if its authority is one of your own, give its certificate with --tls-ca FILE");
            case CURLE_SSL_CACERT_BADFILE:
                return failure(Errc::kUsage, "the given certificates of authorities cannot be read: " + base::printable(why, 300));
            case CURLE_SSL_CONNECT_ERROR:
                return failure(Errc::kProtocol, where + " does not speak TLS as it should: " + base::printable(why, 300),
                               "a registry without TLS is used with --plain-http, on a network that you trust");
            case CURLE_UNSUPPORTED_PROTOCOL:
            case CURLE_WEIRD_SERVER_REPLY:
                return failure(Errc::kProtocol, where + " does not speak HTTP: " + base::printable(why, 300));
            case CURLE_OPERATION_TIMEDOUT:
                return failure(Errc::kTimeout, where + " is too slow: " + base::printable(why, 300));
            default:
                return failure(Errc::kIo, "the connection to " + where + " failed: " + base::printable(why, 300));
        }
    }

    const HttpRequest& request_;
    std::string proxy_;  // for people; empty: none
    HttpAnswer answer_;
    std::size_t header_bytes_ = 0;
    bool begun_ = false;
    std::optional<Error> failed_;
};

class CurlHttp final : public Http {
  public:
    CurlHttp(std::string user_agent, std::shared_ptr<const RegistryProxies> proxies)
        : handle_(curl_easy_init()), user_agent_(std::move(user_agent)), proxies_(std::move(proxies)) {}
    CurlHttp(const CurlHttp&) = delete;
    CurlHttp& operator=(const CurlHttp&) = delete;
    ~CurlHttp() override { curl_easy_cleanup(handle_); }

    Result<HttpAnswer> send(const HttpRequest& request) override {
        if (handle_ == nullptr) return failure(Errc::kInternal, "libcurl cannot be used");
        curl_easy_reset(handle_);  // connections stay
        char details[CURL_ERROR_SIZE] = {};
        const auto url = request.url.to_string();
        List headers;
        bool fine = true;
        for (const auto& line : request.headers) fine = fine && append(headers, line);
        if (!request.authorization.empty()) {
            std::string line = "Authorization: " + std::string(request.authorization.reveal());
            fine = fine && append(headers, line);
            wipe(line);
        }
        if (!fine) return failure(Errc::kInternal, "no memory for a request");
        const Secret none;
        const auto& proxy = is_loopback(request.url.host) ? none : request.url.tls ? proxies_->https : proxies_->http;
        std::string proxy_url(proxy.reveal());
        Transfer transfer(request, name_of_proxy(proxy));
        set(CURLOPT_URL, url.c_str());
        set(CURLOPT_PROTOCOLS_STR, request.url.tls ? "https" : "http");
        set(CURLOPT_FOLLOWLOCATION, 0L);
        set(CURLOPT_PROXY, proxy_url.c_str());  // empty: none, whatever an environment says
        wipe(proxy_url);                        // libcurl has a copy
        set(CURLOPT_NOPROXY, proxies_->no_proxy.c_str());
        set(CURLOPT_HEADEROPT, static_cast<long>(CURLHEADER_SEPARATE));  // the registry's password is not the proxy's
        set(CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
        set(CURLOPT_NETRC, static_cast<long>(CURL_NETRC_IGNORED));
        set(CURLOPT_HTTPHEADER, headers.get());
        set(CURLOPT_USERAGENT, user_agent_.c_str());
        set(CURLOPT_NOSIGNAL, 1L);
        set(CURLOPT_ERRORBUFFER, details);
        set(CURLOPT_BUFFERSIZE, kReceiveBytes);
        set(CURLOPT_HTTP_CONTENT_DECODING, 0L);  // bytes as they are: their digest counts
        set(CURLOPT_SSL_VERIFYPEER, 1L);
        set(CURLOPT_SSL_VERIFYHOST, 2L);
        set(CURLOPT_SSLVERSION, static_cast<long>(CURL_SSLVERSION_TLSv1_2));
        // The host's own authorities stay: libcurl's default directory is not touched by this.
        curl_blob authorities{const_cast<char*>(request.authorities_pem.data()), request.authorities_pem.size(), CURL_BLOB_NOCOPY};
        if (!request.authorities_pem.empty()) set(CURLOPT_CAINFO_BLOB, &authorities);
        set(CURLOPT_CONNECTTIMEOUT, static_cast<long>(request.connect_timeout.count()));
        set(CURLOPT_LOW_SPEED_LIMIT, kStallBytesPerSecond);
        set(CURLOPT_LOW_SPEED_TIME, static_cast<long>(request.stall_timeout.count()));
        if (request.deadline.count() > 0) set(CURLOPT_TIMEOUT, static_cast<long>(request.deadline.count()));
        if (request.form) {
            set(CURLOPT_POST, 1L);
            set(CURLOPT_POSTFIELDSIZE, static_cast<long>(request.form->size()));
            set(CURLOPT_POSTFIELDS, request.form->reveal().data());
        }
        set(CURLOPT_HEADERFUNCTION, &Transfer::header);
        set(CURLOPT_HEADERDATA, &transfer);
        set(CURLOPT_WRITEFUNCTION, &Transfer::body);
        set(CURLOPT_WRITEDATA, &transfer);
        auto code = curl_easy_perform(handle_);
        return transfer.finish(code, details);
    }

  private:
    template <typename T>
    void set(CURLoption option, T value) {
        curl_easy_setopt(handle_, option, value);
    }
    CURL* handle_;
    std::string user_agent_;
    std::shared_ptr<const RegistryProxies> proxies_;
};

}  // namespace

std::function<std::unique_ptr<Http>()> make_curl_factory(std::string user_agent, RegistryProxies proxies) {
    curl_global_init(CURL_GLOBAL_DEFAULT);
    return [user_agent = std::move(user_agent), proxies = std::make_shared<const RegistryProxies>(std::move(proxies))] {
        return std::make_unique<CurlHttp>(user_agent, proxies);
    };
}

}  // namespace caisson::image::registry

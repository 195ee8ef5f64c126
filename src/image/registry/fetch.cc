#include "image/registry/fetch.h"

#include <sys/stat.h>
#include <sys/statvfs.h>

#include <condition_variable>
#include <mutex>
#include <set>
#include <thread>

#include "base/text.h"
#include "image/limits.h"

namespace caisson::image::registry {

using base::failure;
using base::printable;

namespace {

constexpr const char* kAccept =
    "Accept: application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, "
    "application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";
constexpr std::uint64_t kNewsBytes = 128 << 10;

// Else what has arrived may be what is wrong, and nothing of it stays.
bool is_network_trouble(const Error& error) {
    return error.code == Errc::kIo || error.code == Errc::kTimeout || error.code == Errc::kCancelled;
}

class Fetch {
  public:
    explicit Fetch(const FetchPlan& plan) : plan_(plan), http_(plan.http()) {
        for (const auto& endpoint : plan.endpoints)
            sessions_.push_back(std::make_unique<Session>(endpoint, [this](std::chrono::milliseconds time) { return wait(time); }));
    }

    Result<Fetched> run() {
        auto fetched = find();
        if (fetched) {
            auto blobs = fetch_blobs();
            if (!blobs) fetched = failure(std::move(blobs).error());
        }
        if (!fetched && !is_network_trouble(fetched.error()))
            for (const auto& hex : ours_) discard_idle_download(plan_.downloads, hex);
        return fetched;
    }

    Result<> check() {
        auto answer = sessions_.front()->get(*http_, "", {.authorities_pem = plan_.endpoints.front().authorities_pem,
                                                          .max_body_bytes = kMaxErrorBodyBytes});
        if (!answer) return failure(std::move(answer).error());
        return {};
    }

  private:
    // False: given up.
    bool wait(std::chrono::milliseconds time) {
        std::unique_lock guard(mutex_);
        woken_.wait_for(guard, time, [&] { return cancelled_.load(); });
        return !cancelled_;
    }
    void cancel() {
        std::scoped_lock guard(mutex_);
        cancelled_ = true;
        woken_.notify_all();
    }

    // The manifest, from the first endpoint that has it.
    Result<Fetched> find() {
        Result<Fetched> last = failure(Errc::kInternal, "no registry to ask");
        for (std::size_t i = 0; i < sessions_.size(); ++i) {
            last = resolve(*sessions_[i]);
            if (last) {
                // Blobs come from where the manifest came from; the others are asked after that.
                std::rotate(sessions_.begin(), sessions_.begin() + static_cast<std::ptrdiff_t>(i), sessions_.end());
                return last;
            }
        }
        return last;
    }

    Result<Fetched> resolve(Session& session) {
        Fetched fetched;
        auto reference = plan_.digest.empty() ? plan_.tag : plan_.digest;
        auto text = CAISSON_TRY(fetch_document(session, reference, plan_.digest, fetched.manifest));
        fetched.source_digest = fetched.manifest.digest;
        for (int depth = 0; is_index_type(fetched.manifest.media_type); ++depth) {
            if (depth >= kMaxIndexDepth)
                return failure(Errc::kLimit, "the image nests lists of manifests more than " + std::to_string(kMaxIndexDepth) + " deep");
            auto chosen = CAISSON_TRY(choose(CAISSON_TRY(parse_index(text))));
            text = CAISSON_TRY(fetch_document(session, chosen.digest, chosen.digest, fetched.manifest));
            if (fetched.manifest.size != chosen.size)
                return failure(Errc::kCorrupt, "manifest " + chosen.digest + " has " + std::to_string(text.size()) +
                                                   " bytes, but the list of manifests says " + std::to_string(chosen.size));
        }
        manifest_ = CAISSON_TRY(parse_manifest(text));
        auto hex = CAISSON_TRY(digest_hex(fetched.manifest.digest));
        if (!os::exists(plan_.blobs_directory + "/" + hex)) {
            ours_.insert(hex);
            CAISSON_TRY(os::write_file_atomic(plan_.downloads.complete(hex), text, 0444));
        }
        return fetched;
    }

    Result<std::string> fetch_document(Session& session, const std::string& reference, const std::string& digest, Descriptor& found) {
        const auto& endpoint = session.endpoint();
        HttpRequest request;
        request.headers = {kAccept};
        request.authorities_pem = endpoint.authorities_pem;
        request.max_body_bytes = kMaxJsonBytes;
        auto answer = session.get(*http_, "manifests/" + reference, std::move(request));
        if (!answer && answer.error().code == Errc::kNotFound && answer.error().hint.empty())
            return failure(Errc::kNotFound, endpoint.name + " has no image " + endpoint.repository + (digest.empty() ? ":" : "@") + reference,
                           "check name and tag; both are case-sensitive");
        if (!answer) return failure(std::move(answer).error());
        auto own = digest_of(answer->body);
        auto claimed = answer->head.header("docker-content-digest");
        if (!digest.empty() && own != digest)
            return failure(Errc::kCorrupt, "what " + endpoint.name + " sent as manifest " + digest + " has the digest " + own);
        if (claimed.starts_with("sha256:") && claimed != own)
            return failure(Errc::kCorrupt, endpoint.name + " says that the manifest has the digest " + printable(claimed, 100) + ", but it has " + own);
        auto type = CAISSON_TRY(document_type(answer->body, answer->head.header("content-type")));
        found = {type, own, answer->body.size()};
        return std::move(answer->body);
    }

    Result<Descriptor> choose(const Index& index) const {
        const auto& wanted = plan_.platform;
        const Descriptor* best = nullptr;
        std::set<std::string> offered;
        for (const auto& entry : index.manifests) {
            if (!entry.artifact_type.empty() || (entry.os == "unknown" && entry.architecture == "unknown")) continue;  // attestations
            offered.insert(printable(entry.os + "/" + entry.architecture + (entry.variant.empty() ? "" : "/" + entry.variant), 60));
            bool fits = (entry.os.empty() || entry.os == wanted.os) && (entry.architecture.empty() || entry.architecture == wanted.architecture) &&
                        (wanted.variant.empty() || entry.variant == wanted.variant);
            // Without a wish the plainest of several variants.
            if (fits && (best == nullptr || (wanted.variant.empty() && entry.variant < best->variant))) best = &entry;
        }
        if (best != nullptr) return *best;
        std::vector<std::string> names(offered.begin(), offered.end());
        if (names.size() > 20) names.resize(20);
        return failure(Errc::kNotFound, "the image has no variant for " + wanted.to_string(),
                       names.empty() ? "" : "choose one with --platform; there are: " + base::join(names, ", "));
    }

    Result<> fetch_blobs() {
        // Equal layers are one file.
        std::set<std::string> seen;
        auto add = [&](const Descriptor& blob, std::size_t number) {
            if (seen.insert(blob.digest).second) jobs_.push_back({blob, number});
        };
        add(manifest_.config, 0);
        for (std::size_t i = 0; i < manifest_.layers.size(); ++i) add(manifest_.layers[i], i + 1);
        if (manifest_.config.size > kMaxJsonBytes)
            return failure(Errc::kLimit, "the image's config is larger than the limit of " + base::format_size(kMaxJsonBytes));
        std::uint64_t total = 0, missing = 0;
        for (const auto& job : jobs_) {
            total += job.blob.size;  // each is at most kMaxBlobBytes, and there are few
            auto hex = CAISSON_TRY(digest_hex(job.blob.digest));
            if (!os::exists(plan_.blobs_directory + "/" + hex)) {
                ours_.insert(hex);
                struct stat info {};
                std::uint64_t have = ::stat(plan_.downloads.partial(hex).c_str(), &info) == 0 ? static_cast<std::uint64_t>(info.st_size) : 0;
                if (!os::exists(plan_.downloads.complete(hex)) && have < job.blob.size) missing += job.blob.size - have;
            }
        }
        if (total > kMaxArchiveBytes)
            return failure(Errc::kLimit, "the image's layers are larger than the limit of " + base::format_size(kMaxArchiveBytes));
        struct statvfs space {};
        if (::statvfs(plan_.downloads.directory.c_str(), &space) == 0 && missing > space.f_bavail * space.f_frsize)
            return failure(Errc::kNoSpace, "the image needs " + base::format_size(missing) + ", and the home's disk has " +
                                               base::format_size(space.f_bavail * space.f_frsize), "make room: caisson image prune");
        std::vector<std::thread> threads;
        auto count = std::min(std::max<std::size_t>(plan_.parallel, 1), jobs_.size());
        for (std::size_t i = 1; i < count; ++i) threads.emplace_back([this] { work(); });
        work();
        for (auto& thread : threads) thread.join();
        if (first_error_) return failure(std::move(*first_error_));
        return {};
    }

    void work() {
        auto http = plan_.http();
        for (;;) {
            std::size_t mine;
            {
                std::scoped_lock guard(mutex_);
                if (next_ >= jobs_.size() || cancelled_) return;
                mine = next_++;
            }
            const auto& [blob, number] = jobs_[mine];
            BlobJob job{.downloads = plan_.downloads, .blobs_directory = plan_.blobs_directory};
            for (const auto& session : sessions_) job.sessions.push_back(session.get());
            job.wait = [this](std::chrono::milliseconds time) { return wait(time); };
            job.cancelled = &cancelled_;
            std::uint64_t said = 0;
            std::optional<BlobState> said_state;
            job.progress = [&, &blob = blob, &number = number](BlobState state, std::uint64_t done) {
                if (number == 0 || !plan_.news || (said_state == state && done < said + kNewsBytes)) return;
                said = done;
                said_state = state;
                std::scoped_lock guard(news_mutex_);
                plan_.news({number, manifest_.layers.size(), blob.digest, state, done, blob.size});
            };
            auto done = download_blob(*http, job, blob);
            if (done) continue;
            {
                std::scoped_lock guard(mutex_);
                if (!first_error_ && done.error().code != Errc::kCancelled)
                    first_error_ = std::move(done).error().with_context(
                        number == 0 ? "the image's config (" + blob.digest + ")"
                                    : "layer " + std::to_string(number) + " of " + std::to_string(manifest_.layers.size()) + " (" + blob.digest + ")");
            }
            cancel();
            return;
        }
    }

    struct Job {
        Descriptor blob;
        std::size_t number;  // of the layer, from 1; 0: the config
    };

    const FetchPlan& plan_;
    std::unique_ptr<Http> http_;
    std::vector<std::unique_ptr<Session>> sessions_;
    Manifest manifest_;
    std::vector<Job> jobs_;
    std::set<std::string> ours_;  // hex digits of what this pull may bring into the downloads
    std::atomic<bool> cancelled_{false};
    std::mutex mutex_, news_mutex_;
    std::condition_variable woken_;
    std::size_t next_ = 0;
    std::optional<Error> first_error_;
};

}  // namespace

Result<Fetched> fetch_image(const FetchPlan& plan) { return Fetch(plan).run(); }

Result<> check_login(const FetchPlan& plan) { return Fetch(plan).check(); }

}  // namespace caisson::image::registry

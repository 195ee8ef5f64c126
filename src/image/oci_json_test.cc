#include "image/oci_json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "image/limits.h"

namespace caisson::image {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using nlohmann::json;

const std::string kDigest = "sha256:" + std::string(64, 'a');

json descriptor(const std::string& type = std::string(kMediaLayerGzip)) {
    return {{"mediaType", type}, {"digest", kDigest}, {"size", 7}};
}
json manifest() {
    return {{"schemaVersion", 2}, {"config", descriptor(std::string(kMediaConfig))}, {"layers", {descriptor()}}};
}
json config() {
    return {{"architecture", "amd64"}, {"os", "linux"}, {"rootfs", {{"type", "layers"}, {"diff_ids", {kDigest}}}}};
}
template <typename T>
std::string error(const Result<T>& result) {
    return result ? "no error" : result.error().to_string();
}

TEST(OciJson, ReadsAConfig) {
    auto document = config();
    document["created"] = "2024-01-01T00:00:00Z";
    document["config"] = {{"Entrypoint", {"/entry"}}, {"Cmd", {"a", "b"}}, {"Env", {"A=1"}}, {"WorkingDir", "/w"},
                          {"User", "1000:1000"}, {"StopSignal", "SIGINT"}, {"Labels", {{"k", "v"}}},
                          {"Volumes", {{"/data", json::object()}}}, {"ExposedPorts", {{"80/tcp", json::object()}}}};
    auto read = parse_config(document.dump());
    ASSERT_TRUE(read) << error(read);
    EXPECT_THAT(read->config.entrypoint, ElementsAre("/entry"));
    EXPECT_THAT(read->config.cmd, ElementsAre("a", "b"));
    EXPECT_THAT(read->config.env, ElementsAre("A=1"));
    EXPECT_EQ(read->config.working_directory, "/w");
    EXPECT_EQ(read->config.user, "1000:1000");
    EXPECT_EQ(read->config.stop_signal, "SIGINT");
    EXPECT_EQ(read->config.labels.at("k"), "v");
    EXPECT_THAT(read->config.volumes, ElementsAre("/data"));
    EXPECT_THAT(read->config.exposed_ports, ElementsAre("80/tcp"));
    EXPECT_EQ(read->config.created, "2024-01-01T00:00:00Z");
    EXPECT_THAT(read->diff_ids, ElementsAre(kDigest));
}

TEST(OciJson, ReadsAHealthCheck) {
    auto read = [](json check) {
        auto document = config();
        document["config"]["Healthcheck"] = std::move(check);
        return parse_config(document.dump());
    };
    auto shell = read({{"Test", {"CMD-SHELL", "curl -f x || exit 1"}}, {"Interval", 1500000001}, {"Timeout", 2000000}, {"StartPeriod", 1},
                       {"Retries", 7}});
    ASSERT_TRUE(shell) << error(shell);
    const auto& health = shell->config.health;
    EXPECT_THAT(health.command, ElementsAre("/bin/sh", "-c", "curl -f x || exit 1"));
    EXPECT_EQ(health.interval_ms, 1501);
    EXPECT_EQ(health.timeout_ms, 2);
    EXPECT_EQ(health.start_period_ms, 1);
    EXPECT_EQ(health.retries, 7u);
    EXPECT_THAT(read({{"Test", {"CMD", "/probe", "-q"}}})->config.health.command, ElementsAre("/probe", "-q"));
    for (const json& none : {json{{"Test", {"NONE"}}}, json{{"Test", json::array()}}, json{{"Test", {"CMD"}}}, json{{"Test", {"MAGIC", "x"}}},
                             json::object()})
        EXPECT_TRUE(read(none)->config.health.command.empty()) << none;
    EXPECT_EQ(read({{"Test", {"CMD", "a"}}, {"Interval", -1}}).error().code, Errc::kCorrupt);
    EXPECT_EQ(read({{"Test", {"CMD", "a"}}, {"Retries", 1ULL << 40}}).error().code, Errc::kCorrupt);
    EXPECT_EQ(read("curl").error().code, Errc::kCorrupt);
    Config written;
    written.health = health;
    auto again = parse_config(write_config(written, {kDigest}));
    ASSERT_TRUE(again) << error(again);
    EXPECT_EQ(again->config.health.command, health.command);
    EXPECT_EQ(again->config.health.interval_ms, 1501);
    EXPECT_EQ(again->config.health.retries, 7u);
}

TEST(OciJson, MissingAndNullFieldsAreEmpty) {
    auto document = config();
    document["config"] = {{"Entrypoint", nullptr}, {"Labels", nullptr}, {"Volumes", nullptr}};
    auto read = parse_config(document.dump());
    ASSERT_TRUE(read) << error(read);
    EXPECT_TRUE(read->config.entrypoint.empty());
    document.erase("config");
    EXPECT_TRUE(parse_config(document.dump()));
}

TEST(OciJson, WrittenDocumentsReadBack) {
    Config written;
    written.entrypoint = {"/e", "\xff not utf-8"};
    written.env = {"PATH=/bin", "EMPTY="};
    written.labels = {{"a", "b"}};
    written.volumes = {"/v"};
    written.architecture = "amd64";
    auto read = parse_config(write_config(written, {kDigest}));
    ASSERT_TRUE(read) << error(read);
    EXPECT_EQ(read->config.entrypoint[0], "/e");
    EXPECT_EQ(read->config.env, written.env);
    EXPECT_EQ(read->config.volumes, written.volumes);

    Manifest sheet;
    sheet.config = {std::string(kMediaConfig), kDigest, 3};
    sheet.layers = {{std::string(kMediaLayerZstd), kDigest, 4}};
    auto again = parse_manifest(write_manifest(sheet));
    ASSERT_TRUE(again) << error(again);
    EXPECT_EQ(again->layers[0].media_type, kMediaLayerZstd);
    EXPECT_EQ(again->layers[0].size, 4U);

    Index index;
    index.manifests = {{std::string(kMediaManifest), kDigest, 5, {{std::string(kAnnotationRefName), "a:b"}}, "linux", "amd64", ""}};
    auto same = parse_index(write_index(index));
    ASSERT_TRUE(same) << error(same);
    EXPECT_EQ(same->manifests[0].annotations.at(std::string(kAnnotationRefName)), "a:b");
    EXPECT_EQ(same->manifests[0].architecture, "amd64");
}

TEST(OciJson, RefusesWrongTypes) {
    for (const auto& [key, value] : std::map<std::string, json>{{"Entrypoint", "text"}, {"Cmd", {1}}, {"Env", {{"a", "b"}}},
                                                                 {"Labels", {"a"}}, {"Labels2", nullptr}, {"User", 5}}) {
        auto document = config();
        document["config"] = {{key, value}};
        bool harmless = key == "Labels2";
        EXPECT_EQ(parse_config(document.dump()).has_value(), harmless) << key;
    }
    EXPECT_THAT(error(parse_config("[]")), HasSubstr("not an object"));
    EXPECT_THAT(error(parse_config("{}")), HasSubstr("rootfs"));
    EXPECT_THAT(error(parse_config("nonsense")), HasSubstr("not valid JSON"));
    EXPECT_THAT(error(parse_index("{\"manifests\":{}}")), HasSubstr("not a list"));
    EXPECT_THAT(error(parse_docker_manifest("{}")), HasSubstr("not a list"));
}

TEST(OciJson, RefusesZeroBytesInTexts) {
    auto document = config();
    document["config"] = {{"Cmd", {std::string("a\0b", 3)}}};
    EXPECT_THAT(error(parse_config(document.dump())), HasSubstr("zero byte"));
}

TEST(OciJson, RefusesOddDigestsAndSizes) {
    auto document = manifest();
    document["layers"][0]["digest"] = "sha256:../../etc/passwd";
    EXPECT_THAT(error(parse_manifest(document.dump())), HasSubstr("not a digest"));
    document = manifest();
    for (const json& size : {json(-1), json(1.5), json("7"), json(kMaxBlobBytes + 1)}) {
        document["layers"][0]["size"] = size;
        EXPECT_THAT(error(parse_manifest(document.dump())), HasSubstr("size"));
    }
    document["layers"][0]["size"] = kMaxBlobBytes;
    EXPECT_TRUE(parse_manifest(document.dump()));
}

TEST(OciJson, RefusesUnknownMediaTypes) {
    auto document = manifest();
    document["layers"][0]["mediaType"] = "application/vnd.oci.image.layer.v1.tar+encrypted";
    EXPECT_THAT(error(parse_manifest(document.dump())), HasSubstr("cannot unpack"));
    document = manifest();
    document["config"]["mediaType"] = "application/vnd.cncf.helm.config.v1+json";
    EXPECT_THAT(error(parse_manifest(document.dump())), HasSubstr("something else than a container image"));
    for (const char* type : {"application/vnd.docker.image.rootfs.diff.tar.gzip", "application/vnd.oci.image.layer.v1.tar",
                             "application/vnd.oci.image.layer.v1.tar+zstd"}) {
        document = manifest();
        document["layers"][0]["mediaType"] = type;
        EXPECT_TRUE(parse_manifest(document.dump())) << type;
    }
}

TEST(OciJson, LimitsSizeDepthAndCounts) {
    EXPECT_TRUE(parse_json("\"" + std::string(kMaxJsonBytes - 2, ' ') + "\"", "it"));
    EXPECT_THAT(error(parse_json("\"" + std::string(kMaxJsonBytes - 1, ' ') + "\"", "it")), HasSubstr("large"));
    EXPECT_TRUE(parse_json(std::string(kMaxJsonDepth, '[') + std::string(kMaxJsonDepth, ']'), "it"));
    EXPECT_THAT(error(parse_json(std::string(kMaxJsonDepth + 1, '[') + std::string(kMaxJsonDepth + 1, ']'), "it")), HasSubstr("nested"));
    EXPECT_TRUE(parse_json("[\"" + std::string(1000, '[') + "\\\"[\"]", "it"));  // brackets in texts do not count

    auto document = manifest();
    document["layers"] = json::array();
    for (std::size_t i = 0; i < kMaxLayers; ++i) document["layers"].push_back(descriptor());
    EXPECT_TRUE(parse_manifest(document.dump()));
    document["layers"].push_back(descriptor());
    EXPECT_THAT(error(parse_manifest(document.dump())), HasSubstr("257 \"layers\""));

    auto index = json{{"manifests", json::array()}};
    for (std::size_t i = 0; i < kMaxManifestsPerIndex; ++i) index["manifests"].push_back(descriptor());
    EXPECT_TRUE(parse_index(index.dump()));
    index["manifests"].push_back(descriptor());
    EXPECT_THAT(error(parse_index(index.dump())), HasSubstr("1025"));

    auto big = config();
    big["config"]["Env"] = std::vector<std::string>(kMaxConfigStrings, "A=1");
    EXPECT_TRUE(parse_config(big.dump()));
    big["config"]["Env"].push_back("B=1");
    EXPECT_THAT(error(parse_config(big.dump())), HasSubstr("16385"));
}

TEST(OciJson, ReadsDockersManifest) {
    auto read = parse_docker_manifest(
        R"([{"Config":"c.json","RepoTags":["a:1","b:2"],"Layers":["x/layer.tar"]},{"Config":"d","RepoTags":null,"Layers":[]}])");
    ASSERT_TRUE(read) << error(read);
    ASSERT_EQ(read->size(), 2U);
    EXPECT_THAT((*read)[0].repo_tags, ElementsAre("a:1", "b:2"));
    EXPECT_THAT((*read)[0].layers, ElementsAre("x/layer.tar"));
    EXPECT_TRUE((*read)[1].repo_tags.empty());
}

}  // namespace
}  // namespace caisson::image

#include "image/name.h"

#include <gtest/gtest.h>

#include "image/digest.h"
#include "image/limits.h"

namespace caisson::image {
namespace {

std::string name(std::string_view text) {
    auto reference = parse_reference(text);
    return reference ? reference->name() : "?";
}

const std::string kDigest = "sha256:" + std::string(64, 'a');

TEST(Reference, DefaultsToTheTagLatest) {
    EXPECT_EQ(name("debian"), "debian:latest");
    EXPECT_EQ(name("caisson/base"), "caisson/base:latest");
    EXPECT_EQ(name("debian:12"), "debian:12");
}

TEST(Reference, DropsDockersOwnRegistry) {
    EXPECT_EQ(name("docker.io/library/debian:12"), "debian:12");
    EXPECT_EQ(name("index.docker.io/library/debian"), "debian:latest");
    EXPECT_EQ(name("docker.io/owner/name"), "owner/name:latest");
}

TEST(Reference, TakesRegistriesWithPorts) {
    EXPECT_EQ(name("localhost:5000/name"), "localhost:5000/name:latest");
    EXPECT_EQ(name("Registry.Example.com/a/b_c:V1.0-x"), "Registry.Example.com/a/b_c:V1.0-x");
}

TEST(Reference, TakesDigests) {
    auto reference = parse_reference("ghcr.io/a/b:tag@" + kDigest);
    ASSERT_TRUE(reference);
    EXPECT_EQ(reference->repository, "ghcr.io/a/b");
    EXPECT_EQ(reference->tag, "tag");
    EXPECT_EQ(reference->digest, kDigest);
    EXPECT_EQ(name("debian@" + kDigest), "debian@" + kDigest);
}

TEST(Reference, RefusesWhatIsNoName) {
    for (const char* text : {"", "/", "a//b", "/a", "a/", "Debian", "a b", "a:", "a:b:c", "-a", "a-", "a..b", "a___b", "../a",
                             "a/../b", "a:.tag", "host:port/a", "a@sha256:short", "a@md5:0", "a\nb", "a:t\xc3\xa9"})
        EXPECT_EQ(name(text), "?") << text;
    EXPECT_EQ(name("a:" + std::string(128, 't')), "a:" + std::string(128, 't'));
    EXPECT_EQ(name("a:" + std::string(129, 't')), "?");
    EXPECT_NE(name(std::string(kMaxImageNameBytes, 'n')), "?");
    EXPECT_EQ(name(std::string(kMaxImageNameBytes + 1, 'n')), "?");
}

TEST(Digest, IsSha256InHex) {
    EXPECT_EQ(digest_of("abc"), "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    EXPECT_EQ(digest_hex(kDigest).value(), std::string(64, 'a'));
    EXPECT_FALSE(digest_hex("sha512:" + std::string(64, 'a')));
    EXPECT_FALSE(digest_hex("sha256:" + std::string(63, 'a')));
    EXPECT_FALSE(digest_hex("sha256:" + std::string(64, 'A')));
    EXPECT_FALSE(digest_hex("sha256:../../../../../../../../../../../../../../../../../../../../etc/passwd"));
}

}  // namespace
}  // namespace caisson::image

// For tests: a description as it is rendered, against the text that was reviewed. What changes there changes what a
// process may do, so it shows in every review.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

#include "jail/jail.h"
#include "os/file.h"

namespace caisson::jail {

// The file is CAISSON_GOLDEN/NAME. With CAISSON_UPDATE_GOLDEN in the environment it is written instead.
inline void expect_golden(const std::string& name, const std::string& text) {
    const std::string path = std::string(CAISSON_GOLDEN) + "/" + name;
    if (::getenv("CAISSON_UPDATE_GOLDEN") != nullptr) {
        ASSERT_TRUE(os::write_file_atomic(path, text, 0644));
        return;
    }
    auto reviewed = os::read_file(path);
    ASSERT_TRUE(reviewed) << reviewed.error().to_string();
    EXPECT_EQ(text, *reviewed) << "if that is meant: CAISSON_UPDATE_GOLDEN=1, and look at the difference of " << path;
}

// As whoever reviews it wants it: what is described, then each word of the command line that makes it.
inline std::string rendered(const Description& description) {
    std::string text = describe(description);
    for (const auto& word : bwrap_arguments(description, "/usr/bin/bwrap", true)) text += word + "\n";
    for (const auto& limit : description.resource_limits)
        text += "limit " + std::to_string(limit.resource) + " " + std::to_string(limit.value) + "\n";
    return text;
}

}  // namespace caisson::jail

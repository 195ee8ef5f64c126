#include "box/engine.h"

#include <gtest/gtest.h>

#include "box/convert.h"

namespace caisson::box {
namespace {

wire::ShimError error_of(Errc code, bool no_answer) {
    Error error;
    error.code = code;
    error.message = "why";
    wire::ShimError message;
    to_message(error, message);
    message.set_no_answer(no_answer);
    return message;
}

TEST(Engine, OnlyAGuestThatNeverAnsweredCondemnsKvm) {
    EXPECT_TRUE(condemns_kvm(vmm::Accelerator::kKvm, error_of(Errc::kGuest, true)));
    // An image whose container cannot be made, or a guest that says so.
    EXPECT_FALSE(condemns_kvm(vmm::Accelerator::kKvm, error_of(Errc::kGuest, false)));
    EXPECT_FALSE(condemns_kvm(vmm::Accelerator::kKvm, error_of(Errc::kProtocol, false)));
    EXPECT_FALSE(condemns_kvm(vmm::Accelerator::kKvm, error_of(Errc::kCancelled, true)));
    EXPECT_FALSE(condemns_kvm(vmm::Accelerator::kTcg, error_of(Errc::kGuest, true)));
}

}  // namespace
}  // namespace caisson::box

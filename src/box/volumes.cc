// Runtime's volumes: a thin layer over volume::Catalogue that knows what boxes are called.
#include "box/state.h"
#include "os/file.h"
#include "volume/catalogue.h"

namespace caisson::internal {

Result<> release_volumes(const store::Home& home, const std::string& box_id) {
    if (!os::exists(home.volumes())) return {};
    return CAISSON_TRY(volume::Catalogue::open(home.volumes())).release(box_id);
}

Result<> sweep_volumes(const store::Home& home, store::Database& database) {
    if (!os::exists(home.volumes())) return {};
    auto catalogue = CAISSON_TRY(volume::Catalogue::open(home.volumes()));
    return catalogue.sweep([&] { return database.box_ids(); }).map([](std::uint64_t) {});
}

}  // namespace caisson::internal

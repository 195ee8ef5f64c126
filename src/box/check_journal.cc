// The journal: each chain against its head in the database. See the audit room.
#include <sys/stat.h>

#include "audit/journal.h"
#include "box/check_boxes.h"

namespace caisson::box {

store::Troubles check_journal(const HomeSeen& seen) {
    store::Troubles found;
    const auto root = seen.home->root + "/audit";
    store::check_mode(seen.home->root, root, false, "home_mode", found);
    for (const auto& head : seen.journal) {
        const auto directory = audit::chain_directory(root, head.chain);
        // Heads were read before the chains, which only grow.
        auto verified = audit::verify_chain(directory, audit::known_of(head));
        if (!verified && verified.error().code == Errc::kNotFound) continue;
        if (verified && !verified->finding) continue;
        const auto what = verified ? verified->finding->text : verified.error().to_string();
        found.push_back(store::error("journal_damaged", store::object_of(seen.home->root, directory), what,
                                     "nothing: what is missing of a journal cannot be made up; see: caisson audit verify"));
    }
    return found;
}

}  // namespace caisson::box

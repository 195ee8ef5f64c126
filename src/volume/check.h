// What must be true of the volumes of a home: see catalogue.h.
#pragma once

#include <set>
#include <string>

#include "store/check.h"
#include "volume/catalogue.h"

namespace caisson::volume {

struct CheckRequest {
    std::string home;
    std::string volumes;          // <home>/volumes; need not be there
    std::set<std::string> boxes;  // ids that have a record
    bool boxes_known = true;      // else the records could not be read, and nothing is said of what belongs to none
    // Of a box whose volumes are not there: what else has to be done with it, see box/check_boxes.h.
    std::function<Result<std::string>(const std::string& box, store::Aside& aside)> give_up_box;
};

// While nobody changes the catalogue. `volumes` is how many there are.
store::Troubles check_volumes(const CheckRequest& request, std::size_t& volumes);

// Takes out of the catalogue what it has of a box: its file and the anonymous volumes that no other box mentions.
Result<> put_box_aside(const std::string& volumes, const std::string& box, store::Aside& aside);

}  // namespace caisson::volume

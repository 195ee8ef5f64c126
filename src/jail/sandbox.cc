#include "jail/sandbox.h"

namespace caisson::jail {

namespace {

class Bubblewrap : public Sandbox {
  public:
    std::string_view name() const override { return "jailed"; }
    bool available() const override { return find_bwrap().has_value(); }
    Result<> preflight() const override { return jail::preflight(); }

    Result<> setup(SandboxContext& context) const override {
        context.program = CAISSON_TRY(find_bwrap());
        context.forbid_user_namespaces = can_forbid_user_namespaces(context.program);
        if (context.description.filter) context.filter = CAISSON_TRY(to_file(*context.description.filter));
        return {};
    }

    Result<> apply(const SandboxContext& context, os::Command& command) const override {
        command.arguments = bwrap_arguments(context.description, context.program, context.forbid_user_namespaces);
        command.environment.clear();  // bubblewrap's own; it sets the program's
        if (context.filter) command.descriptors.push_back({context.filter.get(), filter_descriptor(context.description)});
        return {};
    }
};

}  // namespace

const Sandbox& bubblewrap() {
    static const Bubblewrap sandbox;
    return sandbox;
}

}  // namespace caisson::jail

#include "jail/sandbox.h"

#include "base/text.h"

namespace caisson::jail {

namespace {

class Bubblewrap : public Sandbox {
  public:
    std::string_view name() const override { return kJailedWord; }
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

    bool has_init() const override { return true; }
    std::string describe(const Description& description) const override { return jail::describe(description); }
};

class NoJail : public Sandbox {
  public:
    std::string_view name() const override { return kNoJailWord; }
    bool available() const override { return true; }
    Result<> preflight() const override { return {}; }

    Result<> setup(SandboxContext& context) const override {
        const auto& asked = context.description;
        if (!asked.root.empty() || !asked.mounts.empty() || !asked.enter.empty() || asked.filter || asked.proc || asked.minimal_dev)
            return base::failure(Errc::kInternal, "what " + asked.name + " is to be kept in needs a jail");
        return {};
    }

    Result<> apply(const SandboxContext&, os::Command&) const override { return {}; }
    bool has_init() const override { return false; }

    std::string describe(const Description& description) const override {
        std::string text = "NO JAIL of " + description.name + " (--security none)\n"
                           "  namespaces   none of its own: it sees the host's files, processes and network\n"
                           "  environment  " + (description.environment.empty() ? "empty" : base::join(description.environment, " ")) +
                           "\n  descriptors ";
        for (const auto& descriptor : description.descriptors) text += " " + std::to_string(descriptor.target);
        return text + "\n  calls        not filtered by caisson, only by QEMU itself\n"
                      "  landlock     none\n"
                      "  user         the one that boxes run as; never root\n";
    }
};

}  // namespace

const Sandbox& bubblewrap() {
    static const Bubblewrap sandbox;
    return sandbox;
}

const Sandbox& no_jail() {
    static const NoJail sandbox;
    return sandbox;
}

Result<const Sandbox*> sandbox_named(const std::string& word) {
    if (word.empty()) return &bubblewrap();
    for (const auto* sandbox : {&bubblewrap(), &no_jail()})
        if (sandbox->name() == word) return sandbox;
    return base::failure(Errc::kUsage, "--security '" + base::printable(word, 64) + "' is unknown",
                         "leave it out, or use jailed (the default); none runs the box's VMM without a jail");
}

}  // namespace caisson::jail

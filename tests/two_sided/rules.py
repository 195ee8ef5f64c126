"""Which test must notice when a security rule is gone. Each NAME has a NAME.patch beside this file that removes the rule.

rule(NAME, WHAT, TARGETS, TEST, MESSAGE): TARGETS are built with the patch; TEST is then run in the build directory and
must fail with MESSAGE (a regular expression) in its output. Words of TEST: a test program with --gtest_filter, or
`vm FILE -k EXPRESSION` for a black-box test. Those take the whole program: caisson with shim, agent and unpacker.
"""

RULES = []
PROGRAM = ["caisson", "caisson-shim", "caisson-agent", "caisson-unpack", "caisson-fetch", "caisson-copy", "caisson-enter", "caisson-share", "caisson-netns", "caisson-netd"]


def rule(name, what, targets, test, message, root=False):
    RULES.append({"name": name, "what": what, "targets": targets, "test": test, "message": message, "root": root})


# The jail of host processes.
rule("jail_capabilities", "the jail drops every capability", ["jail_test"],
     "tests/jail_test --gtest_filter=JailUserns.HasNoCapabilityAndNoNewPrivileges", r"CapEff:\t0000000000000000")
rule("jail_network", "the jail has a network namespace of its own", ["jail_test"],
     "tests/jail_test --gtest_filter=JailUserns.HasNoNetworkButItsOwnLoopback", r"JailUserns\.HasNoNetworkButItsOwnLoopback")
rule("jail_processes", "the jail has a process namespace of its own", ["attack_vmm_jail", "attack_payload"],
     "tests/attack_vmm_jail --gtest_filter=Attack.NoOtherProcess", r"other_processes|SetUpTestSuite|parent")
rule("jail_clearenv", "bubblewrap clears the environment", ["jail_test"],
     "tests/jail_test --gtest_filter=Jail.RendersTheGoldenCommandLine", r"--clearenv")
rule("jail_service_uid", "started as root, the jail works as the service user", ["attack_vmm_jail", "attack_payload"],
     "tests/attack_vmm_jail --gtest_filter=Attack.IsNeverRootOnTheHost", r"Uid:\t0", root=True)
rule("jail_die_with_parent", "the machine dies with its supervisor", PROGRAM,
     "vm cli/test_tidiness.py -k test_kill_9_of_cli_and_shim_at_once", r"outlives its supervisor")
rule("jail_first_process", "a jail is ended by killing its process namespace", ["jail_test"],
     "tests/jail_test --gtest_filter=JailUserns.*", r"FAILED.*(DestroyingItEnds|KillingItIsPossible)")
rule("jail_limits", "a jail is in its control groups", [*PROGRAM, "hostile_vmm"],
     "vm attack/test_hostile_vmm.py -k fill_with_threads", r"processes and threads", root=True)
rule("spawn_groups", "a child enters its control groups before anything else", ["os_test"],
     "tests/os_test --gtest_filter=CgroupLive.*", r"FAILED.*AChildIsInItFromTheStart", root=True)
rule("limits_swept", "what a killed supervisor leaves in a control group is removed", PROGRAM,
     "vm cli/test_limits.py -k supervisor_was_killed", r"test_a_box_whose_supervisor_was_killed", root=True)
rule("limits_place", "the host's limits are not written where a box's directory says", PROGRAM,
     "vm cli/test_update.py -k where_the_box_s_directory_says", r"written to what the box's directory names", root=True)
rule("limits_required", "a box that requires limits does not start without", ["box_test"],
     "tests/box_test --gtest_filter=GroupPlace.*", r"FAILED.*RequiredLimitsAreAllOrAnError")
rule("strays_unjailed", "a machine without a jail that lost its owner is found", ["box_test"],
     "tests/box_test --gtest_filter=Strays.*", r"FAILED.*AVmmWithoutAJailThatLostItsLauncherIsEnded")
rule("nojail_refuses", "a description that asks for a jail is not started without one", ["jail_test"],
     "tests/jail_test --gtest_filter=NoJail.*", r"FAILED.*RefusesWhatOnlyAJailCanDo")
rule("nojail_word", "only its own word goes without a jail", ["jail_test"],
     "tests/jail_test --gtest_filter=NoJail.*", r"FAILED.*IsChosenByItsWordAlone")
rule("strays_others", "a machine of another home is left alone", ["box_test"],
     "tests/box_test --gtest_filter=Strays.*", r"FAILED.*OfAnotherHomeAreLeftAlone")
rule("strays_deleted", "a machine that lost its owner is found after its disk was deleted", ["box_test"],
     "tests/box_test --gtest_filter=Strays.*", r"FAILED.*AfterTheirOverlayWasDeleted")
rule("spawn_environment", "a process starts with the listed environment only", ["os_test"],
     "tests/os_test --gtest_filter=Process.EnvironmentIsBuiltFromEmpty", r"EnvironmentIsBuiltFromEmpty")
rule("spawn_descriptors", "a process gets the listed descriptors only", ["attack_vmm_jail", "attack_payload"],
     "tests/attack_vmm_jail --gtest_filter=Attack.NothingIsInherited", r"descriptors")

rule("jail_user_namespaces", "a jailed program can make no user namespace", ["attack_vmm_jail", "attack_payload"],
     "tests/attack_vmm_jail --gtest_filter=Attack.NoUserNamespaceAndItWouldGainNothing", r"attempt: unshare_user")
rule("jail_empty_directories", "directories that only hold mount points are read-only", ["attack_vmm_jail", "attack_payload"],
     "tests/attack_vmm_jail --gtest_filter=Attack.NothingOfTheHostsFilesExists", r"attempt: create:/box/new")
rule("jail_keyring", "a jailed program has none of its user's keys", ["attack_table", "attempts"],
     "tests/attack_table --gtest_filter=AttemptTable.*", r"attempt session_keys")
rule("fetch_file_size", "the registry client cannot fill the disk with one file", ["attack_table", "attempts"],
     "tests/attack_table --gtest_filter=AttemptTable.InPlaceOfTheRegistryClient", r"attempt large_file")
rule("unpacker_file_size", "the unpacker cannot make its disk larger than asked for", ["attack_table", "attempts"],
     "tests/attack_table --gtest_filter=AttemptTable.InPlaceOfTheUnpacker", r"attempt large_file")

rule("filter_dangerous", "a filter kills at dangerous calls", ["jail_test"],
     "tests/jail_test --gtest_filter=FilterDeathTest.*", r"FAILED.*HasThreeAnswers")
rule("filter_namespaces", "a filter kills at each flag of clone that makes a namespace", ["jail_test"],
     "tests/jail_test --gtest_filter=FilterDeathTest.*", r"FAILED.*CloneMakesNoNamespace")
rule("filter_ioctl_bits", "a filter looks at the half of an ioctl that the kernel looks at", ["jail_test"],
     "tests/jail_test --gtest_filter=FilterDeathTest.*", r"FAILED.*ConditionsLookAtTheMaskedBits")
rule("filter_threads", "a filter holds for threads that run already", ["jail_test"],
     "tests/jail_test --gtest_filter=FilterDeathTest.*", r"FAILED.*HoldsForAllThreads")
rule("landlock_tcp", "Landlock forbids TCP", ["os_test"],
     "tests/os_test --gtest_filter=LandlockDeathTest.*", r"FAILED.*TcpIsForbidden")
rule("landlock_signals", "Landlock keeps signals inside", ["os_test"],
     "tests/os_test --gtest_filter=LandlockDeathTest.*", r"FAILED.*SignalsAndAbstractSockets")
rule("landlock_abstract", "Landlock keeps abstract sockets of others out of reach", ["os_test"],
     "tests/os_test --gtest_filter=LandlockDeathTest.*", r"FAILED.*SignalsAndAbstractSockets")

rule("vmm_filter", "the VMM runs under a system call filter from its first instruction", [*PROGRAM, "hostile_vmm"],
     "vm attack/test_hostile_vmm.py -k forbidden_call", r"_makes_a_forbidden_call_is_killed.*_")
rule("vmm_landlock", "the VMM runs under Landlock", ["attack_template", "hostile_vmm", "caisson-enter"],
     "tests/attack_template --gtest_filter=*.WhatItTriesIsRefused", r"signal_first_process EPERM")
rule("unpacker_filter", "the unpacker runs under a system call filter", ["attack_table"],
     "tests/attack_table --gtest_filter=AttemptTable.*", r"FAILED.*InPlaceOfTheUnpacker")
rule("unpacker_landlock", "the unpacker runs under Landlock", ["attack_unpacker_jail", "hostile_unpacker", "caisson-enter"],
     "tests/attack_unpacker_jail", r"signal_first_process EPERM")
rule("fetch_filter", "the registry client runs under a system call filter", PROGRAM,
     "vm cli/test_registry.py -k test_what_the_registry_client_sees", r"Seccomp")

# The machine.
rule("template_files_only", "a VMM that makes a template can write two files and create none",
     ["attack_template", "hostile_vmm"], "tests/attack_template --gtest_filter=*.WhatItTriesIsRefused", r"beside_the_memory EROFS")
rule("template_greeted_once", "a guest greets once while its template is made", ["attack_template", "hostile_vmm"],
     "tests/attack_template --gtest_filter=*.ASecondGreetingIsTheEnd", r"FAILED.*ASecondGreetingIsTheEnd")
rule("vmm_talks_on", "a VMM that never stops talking ends its box", [*PROGRAM, "hostile_vmm"],
     "vm attack/test_hostile_vmm.py -k control_socket_that_never_stops", r"lines in a second|-> 124")
rule("vmm_file_size", "a VMM cannot grow its files beyond the machine's size", ["attack_template", "hostile_vmm"],
     "tests/attack_template --gtest_filter=*.WhatItTriesIsRefused", r"grow_disk EFBIG")
rule("vmm_random_limit", "a guest cannot make the VMM take memory for randomness", [*PROGRAM, "attack_poke_devices"],
     "vm attack/guest/test_poked_devices.py -k test_randomness_takes_no_memory", r"AssertionError: QEMU \d+ MiB")
rule("vmm_memory", "a VMM cannot hold more than a fixed amount beyond the machine's memory", PROGRAM,
     "vm cli/test_isolation.py -k test_limits_of_the_vmm", r"unlimited")
rule("assets_owner", "assets that others could have planted are not used", ["vmm_test"],
     "tests/vmm_test --gtest_filter=Assets.*", r"FAILED.*ThatOthersCouldHavePlanted")
rule("kvm_condemned", "only a guest that never answered switches KVM off", ["box_test"],
     "tests/box_test --gtest_filter=Engine.*", r"FAILED.*OnlyAGuestThatNeverAnswered")
rule("template_read_only", "a template is mounted read-only", ["attack_vmm_jail", "attack_payload"],
     "tests/attack_vmm_jail --gtest_filter=*Attack*", r"attempt: chmod:/template/mem")
rule("base_disk_read_only", "the base disk is mounted read-only", ["attack_vmm_jail", "attack_payload"],
     "tests/attack_vmm_jail --gtest_filter=*Attack*", r"attempt: chmod:/disk/base\.ext4")
rule("vmm_seccomp", "the VMM filters its system calls", PROGRAM,
     "vm cli/test_isolation.py -k test_the_vmm_has_no_privileges", r"Seccomp|'0' == '2'")

# What passes between guest and client.
rule("relay_input_credit", "the guest asks only for input that it took", ["box_test"],
     "tests/box_test --gtest_filter=StreamRulesTest.*", r"TheGuestGrantsCreditOnlyForInputThatItGot")
rule("relay_output_credit", "the guest sends only what the client has room for", PROGRAM + ["attack_hostile_guest"],
     "vm attack/guest/test_hostile_guest.py -k writes_without_credit", r"writes_without_credit")
rule("relay_one_end", "a stream ends once", ["box_test"],
     "tests/box_test --gtest_filter=StreamRulesTest.*", r"AnOutputEndsOnce")
rule("relay_stream_after_start", "streams begin when the command runs", PROGRAM + ["attack_hostile_guest"],
     "vm attack/guest/test_hostile_guest.py -k writes_before_it_started", r"writes_before_it_started")

rule("relay_asked_executions", "the guest tells only of executions that were asked for", PROGRAM + ["attack_hostile_guest"],
     "vm attack/guest/test_hostile_guest.py -k ends_what_never_was", r"ends_what_never_was")
rule("relay_input_holder", "one client at a time has an execution's input", ["box_test"],
     "tests/box_test --gtest_filter=StreamRulesTest.*", r"InputIsOneClients")
rule("idle_by_host", "a guest cannot pretend that its box is used", PROGRAM,
     "vm cli/test_stop_start.py -k test_an_idle_box_is_stopped", r"loud|AssertionError")
rule("disk_plain_file", "a disk that became a link or a pipe is refused unopened", ["vmm_test"],
     "tests/vmm_test --gtest_filter=Qcow2.*", r"FAILED.*WhatIsNoPlainFileIsNotOpened")
rule("overlay_header", "a disk whose header was rewritten is told, not shown", PROGRAM,
     "vm cli/test_copy.py -k test_a_rewritten_disk", r"test_a_rewritten_disk")

# Images.
rule("disk_by_bytes", "an image cannot make the root disk of another one", ["image_test"],
     "tests/image_test --gtest_filter=*ADiskBelongsToTheBytes*", r"ADiskBelongsToTheBytes")
rule("plan_printable", "a plan holds nothing that a terminal obeys", PROGRAM,
     "vm cli/test_dry_run.py -k test_nothing_that_a_terminal_obeys", r"test_nothing_that_a_terminal_obeys")

# The container in the guest.
rule("guest_devices", "the container opens only the usual devices", PROGRAM,
     "vm attack/guest/test_guest.py -k test_it_fails", r"read_the_disk")
rule("guest_capabilities", "the container has Docker's capabilities and no more", PROGRAM,
     "vm attack/guest/test_guest.py -k test_capabilities_are_docker_s", r"CapEff|CapBnd|2818844155")
rule("guest_masks", "paths of the kernel's are hidden in the container", PROGRAM,
     "vm attack/guest/test_guest.py -k test_it_fails", r"read_keys|list_acpi")
rule("guest_read_only_proc", "the kernel's settings are read-only in the container", PROGRAM,
     "vm attack/guest/test_guest.py -k test_it_fails", r"write_overcommit|write_sysctl")
rule("guest_filter_above", "no container process can take the device filter off", PROGRAM,
     "vm attack/guest/test_container_attacks.py -k BPF_PROG_DETACH", r"test_it_is_answered_so\[.*device filter off")
rule("guest_limits_above", "no container process can change the box's limits", PROGRAM,
     "vm attack/guest/test_container_attacks.py -k processes", r"more than 60")
rule("guest_hidden_processes", "the container's first process shows nothing of itself", PROGRAM,
     "vm attack/guest/test_container_attacks.py -k proc", r"test_it_is_answered_so\[.*/proc/1/")
rule("guest_no_new_privileges", "with no new privileges set-user-id bits mean nothing", PROGRAM,
     "vm cli/test_privileges.py -k test_security_options", r"NoNewPrivs")
rule("guest_dropped_capabilities", "what is dropped comes back by no program", PROGRAM,
     "vm cli/test_privileges.py -k test_root_has_what_was_asked_for", r"CapEff|CapBnd")
rule("guest_reseed", "a restored guest gets fresh randomness", PROGRAM,
     "vm cli/test_hygiene.py -k test_first_random_numbers_differ", r"test_first_random_numbers_differ")

# Registries.
rule("pull_digest", "what is downloaded has the digest that was asked for", PROGRAM,
     "vm cli/test_registry.py -k test_a_layer_with_other_bytes", r"test_a_layer_with_other_bytes")
rule("pull_size", "a download ends at the size that the image says", PROGRAM,
     "vm cli/test_registry.py -k test_a_layer_that_is_longer_than_it_says[True]", r"more than the 102400 bytes|assert 2000 < 1000")
rule("pull_authorization", "a password does not follow a redirect", PROGRAM,
     "vm cli/test_registry.py -k test_the_password_does_not_follow_a_redirect", r"Authorization")
rule("pull_plain_http", "nothing is asked over plain HTTP off loopback", PROGRAM,
     "vm cli/test_registry.py -k test_redirects_to_where_nobody_should_go", r"plain HTTP")
rule("pull_certificate", "a registry's certificate is verified", PROGRAM,
     "vm cli/test_registry.py -k test_tls_and_basic", r"certificate")
rule("fetch_jail", "caisson-fetch sees no file of a user", PROGRAM,
     "vm cli/test_registry.py -k test_what_the_registry_client_sees", r"passwd")

# Copies.
rule("copy_beneath", "an extraction never follows a link below its target", ["tar_test"],
     "tests/tar_test --gtest_filter=TarExtract.Links*", r"FAILED.*LinksOfTheArchiveAreNotFollowed")
rule("copy_target_link", "a copy never follows a link that is its target", ["tar_test"],
     "tests/tar_test --gtest_filter=TarExtract.ATarget*", r"FAILED.*ATargetThatIsALinkIsNotFollowed")
rule("copy_source_link", "a slash makes no copy follow a link of the host's", ["tar_test"],
     "tests/tar_test --gtest_filter=TarPack.ALink*", r"FAILED.*ALinkIsNotFollowedBecauseOfASlash")
rule("copy_file_by_file", "an extraction replaces a file by a file only", ["tar_test"],
     "tests/tar_test --gtest_filter=TarExtract.AFileIs*", r"FAILED.*AFileIsReplacedByAFileOnly")
rule("copy_hard_links", "an extraction links only to what it made", ["tar_test"],
     "tests/tar_test --gtest_filter=TarExtract.HardLinks*", r"FAILED.*HardLinksLeadOnlyToWhatTheArchiveMade")
rule("copy_in_the_way", "an extraction never writes to what is there", ["tar_test"],
     "tests/tar_test --gtest_filter=TarExtract.LinksThatWereThere*", r"FAILED.*LinksThatWereThereAreNotFollowed")
rule("copy_dots", "a name in an archive never leads upwards", ["tar_test"],
     "tests/tar_test --gtest_filter=TarNames.*", r"FAILED.*NamesStayBelowTheDirectory")
rule("copy_asked_for", "a copy brings only what was asked for", ["tar_test"],
     "tests/tar_test --gtest_filter=TarExtract.OnlyWhat*", r"FAILED.*OnlyWhatWasAskedForArrives")
rule("copy_whole_files", "a file that is replaced stays until the new one is complete", ["tar_test"],
     "tests/tar_test --gtest_filter=TarExtract.ABroken*", r"FAILED.*ABrokenStreamLeavesTheOldFile")
rule("copy_landlock", "a copy's program sees one directory", ["copy_test"],
     "tests/copy_test --gtest_filter=CopyJailDeathTest.*", r"FAILED.*NothingOutsideIsReached")
rule("copy_calls", "a copy's program makes few system calls", ["copy_test"],
     "tests/copy_test --gtest_filter=CopyJailDeathTest.*", r"FAILED.*OtherSystemCallsAreItsEnd")

# Volumes: what a box may have put into one, and the commands that work on it.
rule("volume_count_up", "counting a volume never climbs out of it", ["volume_test"],
     "tests/volume_test --gtest_filter=Usage.*", r"FAILED.*StaysInATreeWhosePartsAreMoved")
rule("volume_copy_beneath", "no place in a volume is reached through a link", ["volume_test"],
     "tests/volume_test --gtest_filter=Archive.NoPlace*", r"FAILED.*NoPlaceIsReachedThroughALink")
rule("volume_clone_links", "cloning a volume follows no link", ["volume_test"],
     "tests/volume_test --gtest_filter=Clone.*", r"FAILED.*NeverFollowsALinkThatTakesAFilesPlace")
rule("volume_remove_links", "what a sync removes is never behind a link", ["volume_test"],
     "tests/volume_test --gtest_filter=Archive.Others*", r"FAILED.*OthersAreRemovedWithoutFollowingLinks")
rule("volume_host_inode", "modes of guests never reach the host's files", ["volume_test"],
     "tests/volume_test --gtest_filter=Archive.WhatAGuest*", r"FAILED.*WhatAGuestSetNeverReachesTheHostsFiles")
rule("volume_limit_of_copies", "copies into a volume keep to its limit", ["volume_test"],
     "tests/volume_test --gtest_filter=Archive.TheLimit*", r"FAILED.*TheLimitHolds")
rule("volume_rm_in_use", "a volume that a box has is not removed", ["volume_test"],
     "tests/volume_test --gtest_filter=CatalogueTest.RefusesToRemove*", r"FAILED.*RefusesToRemoveWhatABoxHas")
rule("volume_shared_anonymous", "an anonymous volume stays as long as any box has it", ["volume_test"],
     "tests/volume_test --gtest_filter=CatalogueTest.Releases*", r"FAILED.*ReleasesAnonymousVolumesWithTheirBox")
rule("volume_staged_lock", "a volume that is being filled is not swept", ["volume_test"],
     "tests/volume_test --gtest_filter=CatalogueTest.Staged*", r"FAILED.*StagedVolumesAppearWholeOrNotAtAll")

# The supervisor's own lock, and who starts machines for it.
rule("shim_landlock", "a supervisor reaches its box's directory only", ["shim_test"],
     "tests/shim_test --gtest_filter=ShimLockDeathTest.*", r"FAILED.*OtherFilesAreNot")
rule("shim_links", "a supervisor makes no links where its launcher looks", ["shim_test"],
     "tests/shim_test --gtest_filter=ShimLockDeathTest.*", r"FAILED.*NoLinkStandsWhereTheLauncherLooks")
rule("shim_modes", "a supervisor changes no file's mode by its name", ["shim_test"],
     "tests/shim_test --gtest_filter=ShimLockDeathTest.*", r"FAILED.*WhatLandlockLeavesOpenTheFilterDoesNot")
rule("shim_peers", "a supervisor gets no hold of its clients' processes", ["shim_test"],
     "tests/shim_test --gtest_filter=ShimLockDeathTest.*", r"FAILED.*NoDescriptorOfAClientsProcess")
rule("record_ids", "an id of the database is an id and no path", ["store_test"],
     "tests/store_test --gtest_filter=StoreTest.*", r"FAILED.*RecordsThatMakeNoSenseAreLeftOut")
rule("shim_filter", "a supervisor starts, signals and connects to nothing", ["shim_test"],
     "tests/shim_test --gtest_filter=ShimLockDeathTest.*", r"FAILED.*NoOtherProgramOrProcess")
rule("shim_locked", "a supervisor locks itself before its guest says anything", PROGRAM,
     "vm cli/test_isolation.py -k test_the_supervisor_has_locked_itself", r"'0' == '2'|Seccomp")
rule("launcher_no_parameters", "a launcher takes verbs without parameters", ["shim_test"],
     "tests/shim_test --gtest_filter=LauncherTest.*", r"FAILED.*AVerbHasNoParameters")
rule("launcher_own_file", "a launcher starts a box's own disk only", ["shim_test"],
     "tests/shim_test --gtest_filter=LauncherTest.*", r"FAILED.*ALinkIsNoDisk")

# What may be mounted in a box, for whoever asks.
rule("volume_host_path", "-v refuses paths of the host", ["volume_test"],
     "tests/volume_test --gtest_filter=VolumeOption.*", r"FAILED.*PathsOfTheHostAndWhatToWriteInstead")
rule("volume_bind", "--mount refuses paths of the host, whatever it calls them", ["volume_test"],
     "tests/volume_test --gtest_filter=MountFields.*", r"FAILED.*MountFields.PathsOfTheHost")
rule("volume_gate_path", "the gate refuses every path that is not a volume's", ["volume_test"],
     "tests/volume_test --gtest_filter=Gate.TakesPathsOfVolumesOnly", r"FAILED.*TakesPathsOfVolumesOnly")
rule("volume_relative", "the library refuses relative places in a box", ["box_test"],
     "tests/box_test --gtest_filter=Mounts.*", r"FAILED.*AreCheckedForWhoeverFillsThem")
rule("volume_twice", "no two mounts share a place", ["box_test"],
     "tests/box_test --gtest_filter=Mounts.*", r"FAILED.*NoTwoShareAPlace")

# The share server, whose other side is the guest's kernel.
rule("share_read_only", "the share server writes nothing to a volume that is mounted read-only", ["volume_test"],
     "tests/volume_test --gtest_filter=ShareServer.NothingIsWrittenWhereNothingMayBe", r"FAILED.*NothingIsWrittenWhereNothingMayBe")
rule("share_read_only_open", "no file of a read-only volume is opened to write", ["volume_test"],
     "tests/volume_test --gtest_filter=ShareServer.NothingIsWrittenWhereNothingMayBe", r"FAILED.*NothingIsWrittenWhereNothingMayBe")
rule("share_read_only_copy", "nothing is copied into a read-only volume", ["volume_test"],
     "tests/volume_test --gtest_filter=ShareServer.NothingIsWrittenWhereNothingMayBe", r"FAILED.*NothingIsWrittenWhereNothingMayBe")
rule("share_two_volumes", "no name or file goes from one volume to another", ["volume_test"],
     "tests/volume_test --gtest_filter=ShareServer.NothingMovesFromOneVolumeToAnother", r"FAILED.*NothingMovesFromOneVolumeToAnother")
rule("share_names", "a name in a guest's message is one part of a path", ["volume_test"],
     "tests/volume_test --gtest_filter=ShareServer.NamesLeadNowhereElse", r"FAILED.*NamesLeadNowhereElse")
rule("share_links", "the share server follows no link of a volume", ["volume_test"],
     "tests/volume_test --gtest_filter=ShareServer.LinksAreNotFollowed", r"FAILED.*LinksAreNotFollowed")
rule("share_pipes", "the share server opens nothing that could make it wait", ["volume_test"],
     "tests/volume_test --gtest_filter=ShareServer.WhatIsNoFileIsNotOpened", r"FAILED.*WhatIsNoFileIsNotOpened")
rule("share_handles", "an open file is used as its own node's only", ["volume_test"],
     "tests/volume_test --gtest_filter=ShareServer.HandlesAreOfTheirNode", r"FAILED.*HandlesAreOfTheirNode")
rule("share_slot", "what a guest says of a slot stays within the window", ["volume_test"],
     "tests/volume_test --gtest_filter=ShareServer.ASlotEndsWhereTheWindowDoes", r"FAILED.*ASlotEndsWhereTheWindowDoes")
rule("share_slot_size", "no more is written from a slot than it has", ["volume_test"],
     "tests/volume_test --gtest_filter=ShareServer.ASlotEndsWhereTheWindowDoes", r"FAILED.*ASlotEndsWhereTheWindowDoes")
rule("share_window_seals", "who has the window cannot take it from under who else has it", ["vmm_test"],
     "tests/vmm_test --gtest_filter=Machine.TheWindow*", r"FAILED.*TheWindowKeepsItsSizeAndIsNoProgram")
rule("share_window_program", "what a guest puts into the window is no program on the host", ["vmm_test"],
     "tests/vmm_test --gtest_filter=Machine.TheWindow*", r"FAILED.*TheWindowKeepsItsSizeAndIsNoProgram")
rule("share_window_hidden", "a privileged box has no device of the window", PROGRAM,
     "vm cli/test_privileges.py -k test_a_privileged_box_is_opened", r"_+ test_a_privileged_box_is_opened _+")
rule("share_contents_alone", "nothing is promised of what is in a file that another box may change", ["volume_test"],
     "tests/volume_test --gtest_filter=ShareServer.TellsNothingOfContentsInCompany", r"FAILED.*TellsNothingOfContentsInCompany")
rule("share_contents_under_way", "what was in a file before a change is not read after it", ["agent_test"],
     "tests/agent_test --gtest_filter=ShareCacheTest.WhatIsInASmallFileIsReadOnce", r"FAILED.*WhatIsInASmallFileIsReadOnce")
rule("share_listing_alone", "nothing is told of a directory that another box may change", ["volume_test"],
     "tests/volume_test --gtest_filter=ShareServerListing.*", r"FAILED.*NothingIsToldInCompany")
rule("share_listing_pieces", "a guest is told no more of a listing at once than was agreed", ["volume_test"],
     "tests/volume_test --gtest_filter=ShareServerListing.*", r"FAILED.*MoreIsToldWhenItIsWantedAndNoMoreThanWasAgreed")
rule("share_listing_changed", "a listing that was told before a change is not read after it", ["agent_test"],
     "tests/agent_test --gtest_filter=ShareCacheTest.*", r"FAILED.*AChangeEndsWhatWasToldOfAListing")
rule("share_listing_under_way", "a listing that was told during a change is not read after it", ["agent_test"],
     "tests/agent_test --gtest_filter=ShareCacheTest.*", r"FAILED.*AChangeEndsWhatWasToldOfAListing")
rule("share_lock_room", "a removed file counts as long as there is a lock on it", ["volume_test"],
     "tests/volume_test --gtest_filter=ShareServerWithALimit.*", r"FAILED.*WhatWasRemovedTakesItsRoomWhileThereIsALockOnIt")
rule("share_own_attributes", "a guest does not set what caisson keeps of a file", ["volume_test"],
     "tests/volume_test --gtest_filter=ShareServer.CaissonsAttributesAreNotTheGuests", r"FAILED.*CaissonsAttributesAreNotTheGuests")
rule("share_host_modes", "what a guest makes is closed to others on the host", ["volume_test"],
     "tests/volume_test --gtest_filter=ShareServer.OnTheHostFilesAreTheOwnersAlone", r"FAILED.*OnTheHostFilesAreTheOwnersAlone")
rule("share_unsent", "answers that a guest does not take have a limit", ["volume_test"],
     "tests/volume_test --gtest_filter=ShareServer.AGuestThatTakesNoAnswersIsNotListenedTo", r"FAILED.*AGuestThatTakesNoAnswersIsNotListenedTo")
rule("share_open_files", "what a guest has open has a limit", ["volume_test"],
     "tests/volume_test --gtest_filter=ShareServer.OpenFilesAreCounted", r"FAILED.*OpenFilesAreCounted")
rule("share_same_file", "another file under a known one's name is not taken for it", ["volume_test"],
     "tests/volume_test --gtest_filter=ShareServer.AnotherFileUnderAClosedOnesNameIsNotTakenForIt", r"FAILED.*AnotherFileUnderAClosedOnesNameIsNotTakenForIt")
rule("hold_still", "a box that waits for room stands still while files are taken out", PROGRAM,
     "vm cli/test_full_disk.py -k stands_still_while_files", r"the box went on meanwhile", root=True)
rule("hold_gives_up", "a copy from a box that waits for room ends when the room shrinks on", PROGRAM,
     "vm cli/test_full_disk.py -k stands_still_while_files", r"the copy went on", root=True)
rule("share_room", "files that a guest knows of are not all held open", ["volume_test"],
     "tests/volume_test --gtest_filter=ShareServer.FilesAreClosedAndOpenedAgain", r"FAILED.*FilesAreClosedAndOpenedAgain")

# Volumes that are disks.
rule("disk_one_writer", "a disk has one writer, or readers", ["volume_test"],
     "tests/volume_test --gtest_filter=Disk.*", r"FAILED.*HasOneWriterOrAnyNumberOfReaders")
rule("disk_own_file", "what a machine gets as a volume's disk is the file that was made for it", ["volume_test"],
     "tests/volume_test --gtest_filter=Disk.*", r"FAILED.*IsTheFileThatWasMadeForIt")
rule("disk_read_only", "a disk that is mounted read-only cannot be written to in the VMM's jail", ["vmm_test"],
     "tests/vmm_test --gtest_filter=Machine.*", r"FAILED.*AVolumesDiskIsWritableInTheJailOnlyIfItIsToBe")
rule("disk_lock_kept", "a disk is in use as long as a machine can write to it", PROGRAM,
     "vm cli/test_disk_volumes.py -k test_its_machine_holds_it_too", r"test_its_machine_holds_it_too")

# What a volume's server is handed, and what its jail leaves it.
rule("gate_links", "the gate follows no link to a volume, whoever swaps it", ["volume_host_test"],
     "tests/volume_host_test --gtest_filter=DetachedMountUserns.IsTheVolume*", r"something else was mounted|/etc was mounted")
rule("gate_links_inside", "the gate follows no link inside of a volume", ["volume_test"],
     "tests/volume_test --gtest_filter=Gate*", r"FAILED.*FollowsNoLink")
rule("gate_one_part", "a volume is one directory below one of two", ["volume_test"],
     "tests/volume_test --gtest_filter=Gate*", r"FAILED.*SaysWhatIsNotThere")
rule("share_detached", "a volume is handed over as a mount of its own", ["volume_host_test"],
     "tests/volume_host_test --gtest_filter=DetachedMountUserns.*", r"FAILED.*LeadsNowhereElse")
rule("share_mount_read_only", "the host's own mount of a read-only volume is read-only", ["volume_host_test"],
     "tests/volume_host_test --gtest_filter=DetachedMountUserns.*", r"FAILED.*IsReadOnlyIfTheVolumeIs")
for flag in ("exec", "suid", "devices"):
    rule(f"share_no_{flag}", f"the host's own mount of a volume: no {flag}", ["volume_host_test"],
         "tests/volume_host_test --gtest_filter=DetachedMountUserns.*", r"FAILED.*IsWithoutProgramsAndDevices")
rule("share_calls", "the server of volumes runs under a system call filter", ["attack_table", "attempts", "caisson-enter"],
     "tests/attack_table --gtest_filter=AttemptTable.InPlaceOfTheVolumeServer", r"description\.filter")
rule("share_modes", "the server of volumes can make no file that is open to others, or set-user-id", ["attack_table", "attempts", "caisson-enter"],
     "tests/attack_table --gtest_filter=AttemptTable.InPlaceOfTheVolumeServer", r"attempt volume_new_set_user_id")
rule("share_processes", "the server of volumes has no second process", ["attack_table", "attempts", "caisson-enter"],
     "tests/attack_table --gtest_filter=AttemptTable.InPlaceOfTheVolumeServer", r"attempt many_processes")
rule("share_network", "the server of volumes has no network", ["attack_table", "attempts", "caisson-enter"],
     "tests/attack_table --gtest_filter=AttemptTable.InPlaceOfTheVolumeServer", r"attempt loopback")
rule("share_empty_root", "the server of volumes has an empty root", ["attack_table", "attempts", "caisson-enter"],
     "tests/attack_table --gtest_filter=AttemptTable.InPlaceOfTheVolumeServer", r"attempt host_file")
rule("share_words", "the server of volumes does not hold its supervisor's log", PROGRAM,
     "vm attack/test_volume_boundary.py -k holds_no_file", r"shim\.log")
rule("share_count", "the server of volumes holds no count that it may not change", PROGRAM,
     "vm attack/test_volume_boundary.py -k holds_no_file", r"volumes/space")
rule("share_one_entry", "a container has an entry of the box's volumes, and not all", PROGRAM,
     "vm attack/test_volume_boundary.py -k no_other_entry", r"_+ test_\w*no_other_entry _+")
rule("share_catalogue", "what is served is what the home's catalogue says", [*PROGRAM, "hostile_vmm"],
     "vm attack/test_hostile_vmm.py -k let_go_of_it", r"_+ test_\w*let_go_of_it _+")
rule("detach_force", "a volume is taken from a guest that does not let go of it", [*PROGRAM, "hostile_vmm"],
     "vm attack/test_hostile_vmm.py -k let_go_of_it", r"does not say that it has changed")
rule("space_once", "a removed file is counted once, through however many mounts it was known", PROGRAM,
     "vm attack/test_volume_boundary.py -k volume_twice", r"_+ test_\w*volume_twice _+")
rule("space_alone", "what another box may still hold is not free", PROGRAM,
     "vm attack/test_volume_boundary.py -k for_each_other", r"_+ test_\w*for_each_other _+")
rule("journal_chain", "a supervisor has its own box's chain of the journal and no other", ["shim_test"],
     "tests/shim_test --gtest_filter=ShimLockDeathTest.*", r"FAILED.*NoOtherChainOfTheJournalIs")
rule("journal_lowering", "security is not lowered without a record of it", PROGRAM,
     "vm cli/test_audit.py -k without_a_record", r"_+ test_without_a_record\w* _+")


# A box's connections.
rule("net_shown_name", "a connection shows a name that a rule allows", PROGRAM, "vm net/test_network.py -k only_allowed_names", r"_+ test_only_allowed_names _+", root=True)
rule("net_dials_name", "a connection that a name decides goes to where that name is, not to where the guest went", PROGRAM,
     "vm net/test_network.py -k lie_about", r"_+ test_a_lie_about\w* _+", root=True)
rule("net_judged_again", "what is open is judged again when the policy changes", PROGRAM,
     "vm net/test_live.py -k another_policy_holds", r"a connection that the new policy denies is open", root=True)
rule("net_looks_anew", "a rule about names that comes while a connection is read holds for it", ["net_relay_space_test"],
     "tests/net_relay_space_test --gtest_filter=*WhileAConnectionIsRead*", r"Value of: heard")
rule("net_proxy_route", "behind a proxy nothing of the outside is dialled directly", ["net_relay_space_test"],
     "tests/net_relay_space_test --gtest_filter=*OnceTheProxySaysYes*", r"the proxy is not asked")
rule("net_proxy_datagrams", "datagrams do not go around a proxy", ["net_relay_space_test"],
     "tests/net_relay_space_test --gtest_filter=*DatagramsDoNotGoAround*", r"a datagram went around the proxy")
rule("net_proxy_kept", "another policy does not take a box's proxy away", ["box_test"],
     "tests/box_test --gtest_filter=UpdateOfTheNetwork.KeepsTheProxy*", r"the box goes around its proxy from now on")
rule("net_request_own_file", "a box's launcher takes a network from the operator's own file only", ["shim_test"],
     "tests/shim_test --gtest_filter=NetworkRequest*", r"a file with two names was read")
rule("net_request_held", "a request that nobody holds any more changes nothing", ["shim_test"],
     "tests/shim_test --gtest_filter=NetworkRequest*", r"what a dead process left was read")

# What a box may reach.
def policy_rule(name, what, test, message):
    rule(name, what, ["net_policy_test"], f"tests/net_policy_test --gtest_filter={test}", message)


policy_rule("net_deny_address", "a rule that denies an address beats those that allow it", "Policy.*", r"FAILED.*DenyBeatsAllow")
policy_rule("net_deny_name", "a rule that denies a name beats those that allow it", "Policy.*", r"FAILED.*DenyBeatsAllow")
policy_rule("net_deny_shown", "a connection that shows a denied name is denied", "TruthTable.*", r"Failure[^$]*deny-net example\.com \| connect \S+ showing example\.com")
policy_rule("net_suffix_apex", "*.suffix does not cover the suffix itself", "Rule.*", r"FAILED.*ASuffixCovers")
policy_rule("net_suffix_dot", "*.example.com does not cover badexample.com", "TruthTable.*", r"showing badexample\.com")
policy_rule("net_metadata_open", "mode open reaches neither the host nor metadata", "Policy.*", r"FAILED.*MetadataNeedsItsOwnRule")
policy_rule("net_metadata_range", "no range names metadata", "Policy.*", r"FAILED.*MetadataNeedsItsOwnRule")
policy_rule("net_wide_range", "a range that is wider than a special range does not name what is in it", "Rule.*", r"FAILED.*AWideRangeNames")
policy_rule("net_spelling_nat64", "an address of NAT64 is judged by what it carries", "TruthTable.*", r"connect \[64:ff9b::10\.0\.0\.7\]:80")
policy_rule("net_spelling_6to4", "an address of 6to4 is judged by what it carries", "TruthTable.*", r"connect \[2002:7f00:1::1\]:80")
policy_rule("net_spelling_mapped", "a mapped address is the IPv4 address", "SpecialRange.*", r"FAILED.*AMappedAddress")
policy_rule("net_rebinding", "a name does not lead to private networks", "TruthTable.*", r"dial example\.com 10\.0\.0\.7:443")
policy_rule("net_quic", "QUIC is no way around rules about names", "TruthTable.*", r"connect 9\.9\.9\.9:443/udp given git\.example\.com")
policy_rule("net_pin_expires", "a pin holds for a time", "P*", r"FAILED.*APinHoldsUntilItExpires")
policy_rule("net_pin_needed", "where no name is seen, only addresses that were given for an allowed name are reached", "TruthTable.*",
            r"connect 9\.9\.9\.9:22 given other\.example\.com")
policy_rule("net_host_name", "only its own name reaches the host's loopback", "Rule.*", r"FAILED.*OnlyItsOwnName")
policy_rule("net_host_addresses", "the host's own addresses are the host", "Policy.*", r"FAILED.*TheHostsOwnAddresses")
policy_rule("net_only_rules", "an allow-list reaches nothing else", "TruthTable.*", r"showing other\.example\.com")

# Names and name servers of a box's network.
rule("dns_rebinding", "a name of the outside does not lead inside", ["net_dns_test"],
     "tests/net_dns_test --gtest_filter=*Server*:Resolver*", r"an address inside came from outside")
rule("dns_mapped", "an IPv4 address is not taken in an answer for IPv6", ["net_dns_test"],
     "tests/net_dns_test --gtest_filter=Resolver*", r"FAILED.*AMappedAddressIsDropped")
rule("dns_service_records", "records that hide the name of a connection are not served", ["net_dns_test"],
     "tests/net_dns_test --gtest_filter=ServerTest.*", r"a record that hides names is asked for")
rule("dns_denied_not_asked", "a name that policy denies is not asked for outside", ["net_dns_test"],
     "tests/net_dns_test --gtest_filter=ServerTest.*", r"FAILED.*WhatPolicyDeniesDoesNotExistAndIsNotAskedFor")
rule("dns_answer_id", "an answer with a wrong id is none", ["net_dns_test"],
     "tests/net_dns_test --gtest_filter=Dns*:Resolver*", r"an answer with a wrong id was taken")
rule("dns_answer_question", "an answer to another question is none", ["net_dns_test"],
     "tests/net_dns_test --gtest_filter=Dns*:Resolver*", r"FAILED.*AnAnswerToAnotherQuestionIsNone")
rule("sni_one_name", "a ClientHello shows one name", ["net_peek_test"],
     "tests/net_peek_test --gtest_filter=PeekTls.*", r"FAILED.*RefusesASecondName")
rule("sni_one_extension", "a ClientHello has each extension once", ["net_peek_test"],
     "tests/net_peek_test --gtest_filter=PeekTls.*", r"FAILED.*RefusesASecondName")
rule("http_one_host", "a request has one Host header", ["net_peek_test"],
     "tests/net_peek_test --gtest_filter=PeekHttp.*", r"FAILED.*TwoHostHeadersAreRefused")
rule("http_target_agrees", "a request's target and its Host header name the same host", ["net_peek_test"],
     "tests/net_peek_test --gtest_filter=PeekHttp.*", r"FAILED.*ATargetThatDisagreesWithHostIsRefused")
# The namespace of a box's network, and the program in it.
SPACE = ["net_space_test", "caisson-netns"]


def space_rule(name, what, test, message, root=False):
    rule(name, what, SPACE, f"tests/net_space_test --gtest_filter=*Userns.{test}/*", message, root)


space_rule("net_held", "a connection of the guest's begins with a verdict, and not before", "WithoutAVerdictNothingArrives",
           r"FAILED.*WithoutAVerdictNothingArrives")
space_rule("net_policy_drop", "of the guest's packets nothing passes but TCP, UDP and questions to the gateway", "OnlyTheGatewayAnswersAnEcho",
           r"FAILED.*OnlyTheGatewayAnswersAnEcho", root=True)
space_rule("net_source", "packets from other addresses than the guest's own are dropped", "AnotherSourceThanTheGuestsIsNotHeard",
           r"FAILED.*AnotherSourceThanTheGuestsIsNotHeard")
space_rule("net_neighbours", "the host's table of neighbours cannot be filled by a guest", "ItsNeighbourIsTheGuestWhateverThatSays",
           r"FAILED.*ItsNeighbourIsTheGuestWhateverThatSays", root=True)
space_rule("net_dials_guest", "sockets made in the namespace lead to the guest", "NothingButTheGuestIsDialled",
           r"FAILED.*NothingButTheGuestIsDialled")
space_rule("net_locked", "the namespace's program locks itself", "IsLocked", r"FAILED.*IsLocked", root=True)
rule("net_filter", "the namespace's program makes no netlink sockets", ["net_space_lock_test"],
     "tests/net_space_lock_test --gtest_filter=NetnsLockDeathTest.*", r"FAILED.*NoOtherSocketIs")
rule("net_let_in", "nothing reaches a guest's ports before it has its own randomness", ["net_host_test", "caisson-netns", "caisson-netd"],
     "tests/net_host_test --gtest_filter=NetworkHostUserns.*", r"FAILED.*NothingReachesTheGuestBeforeItIsLetIn")
rule("net_template_seeds", "nothing of TCP or UDP is sent before a template is saved", PROGRAM,
     "vm net/test_clones.py -k share", r"FAILED.*test_no_two_boxes_share_the_secret_of_tcp", root=True)
rule("net_held_bounded", "connections that wait for a verdict are counted", ["net_space_parts_test"],
     "tests/net_space_parts_test --gtest_filter=Gate.*", r"FAILED.*SoManyWaitAndNoMore")

# The jail of a box's network, and what is suggested for it.
def netd_rule(name, what, attempt):
    rule(name, what, ["attack_table", "attempts"], "tests/attack_table --gtest_filter=AttemptTable.InPlaceOfTheNetwork", attempt)


netd_rule("netd_filter", "the network's process runs under a system call filter", r"description\.filter")
netd_rule("netd_files", "it opens no file", r"attempt host_file")
netd_rule("netd_processes", "it makes no process", r"attempt many_processes")
netd_rule("netd_options", "it sets the options of sockets that it needs, and no others", r"attempt network_mark")
netd_rule("netd_protocols", "it makes sockets of TCP and UDP, and of no other protocol", r"attempt network_protocols")
netd_rule("netd_families", "it makes no local and no netlink sockets", r"attempt (abstract_socket|network_families)")
netd_rule("netd_listens", "it listens at no port of the host", r"attempt network_service")
rule("netd_descriptors", "it hands no descriptor to its neighbours", ["jail_test"], "tests/jail_test --gtest_filter=Kinds.*",
     r"FAILED.*TheNetworkHandsNoDescriptor")
SUGGEST = ["net_policy_test"]
rule("suggest_denied", "what the operator denied is not suggested", SUGGEST, "tests/net_policy_test --gtest_filter=Suggest.*", r"FAILED.*WhatAnAllowListRefusedIsWanted")
rule("suggest_inside", "what was refused for not being the internet is not suggested", SUGGEST, "tests/net_policy_test --gtest_filter=Suggest.*",
     r"FAILED.*WhatIsNotTheInternetIsToldApart")
rule("suggest_host", "an address of the host is not suggested", SUGGEST, "tests/net_policy_test --gtest_filter=Suggest.*",
     r"FAILED.*WhatIsNotTheInternetIsToldApart")

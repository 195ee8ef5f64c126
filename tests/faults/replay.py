"""What a home may look like after the power failed: from a log that fault_tracer recorded, and a copy of the home as it was
before.

Four kinds of failure:
  killed    everything that was done is there, as after kill -9 of all
  ordered   as on a journalling file system: names and modes up to some point behind the last sync of anything, in their
            order; of what was written to a file since its last sync, a beginning
  hostile   whatever POSIX allows: of all that no sync of that very file or directory has covered, anything may be missing,
            cut off or zero, each by itself
  least     nothing but what such a sync has covered
"""
import os
import pathlib
import shutil
import stat

KINDS = ("killed", "ordered", "hostile")  # those that are drawn
SMALL = 4 << 20  # larger files of the copy are linked,
NEVER_WRITTEN = ("images", "disks", ".reserve")  # if they lie here: a link would change with what looks at the home


class Act:
    """One line of the log."""

    def __init__(self, line):
        word, *rest = line.rstrip("\n").split("\t")
        self.word, self.rest = word, rest
        number = lambda index: int(rest[index])
        self.directories, self.file, self.data = (), None, False
        if word in ("have", "make", "link", "remove"):
            self.directories, self.name, self.file = (number(0),), rest[1], number(2)
        elif word == "rename":
            self.directories, self.name, self.to, self.file = (number(0), number(2)), rest[1], rest[3], number(4)
        elif word in ("write", "size", "hole", "mode", "attribute", "noattribute", "sync"):
            self.file = number(0)
            self.data = word != "sync"
        self.text = rest[0] if word == "mark" else None


class Log:
    def __init__(self, path):
        acts = [Act(line) for line in pathlib.Path(path).read_text().splitlines()]
        unseen = [act.rest for act in acts if act.word == "unseen"]
        assert not unseen, f"what the recorder could not see: {unseen}"
        self.had = [act for act in acts if act.word == "have"]
        self.acts = [act for act in acts if act.word != "have"]
        self.types = {1: "d", **{act.file: act.rest[3] for act in acts if act.word in ("have", "make")}}
        self.written = open(f"{path}.data", "rb")
        # When each act becomes durable by a sync of what it changed; by any sync at all.
        synced, last, everything, count = {}, None, None, len(self.acts)
        self.by_own, self.by_any = [None] * count, [None] * count
        for index in range(count - 1, -1, -1):
            act = self.acts[index]
            if act.word == "sync":
                synced[act.file] = last = index
            elif act.word == "syncall":
                everything = last = index
                synced.clear()
            else:
                numbers = [act.file] if act.data else act.directories
                covers = [sync for sync in (*(synced.get(number) for number in numbers), everything) if sync is not None]
                self.by_own[index] = min(covers, default=None)
                self.by_any[index] = self.by_own[index] if act.data else last

    def marks(self, end):
        """What was acknowledged when the power failed, and what was acknowledged next."""
        done = [act.text for act in self.acts[:end] if act.text is not None]
        coming = next((act.text for act in self.acts[end:] if act.text is not None), None)
        return done, coming

    def moments(self):
        """The numbers of acts after which it is worth while to look: of many writes to one file, the first and the last."""
        same = lambda one, other: one.word == other.word == "write" and one.file == other.file
        return [end for end in range(1, len(self.acts) + 1)
                if not (1 < end < len(self.acts) and same(self.acts[end - 2], self.acts[end - 1]) and same(self.acts[end - 1], self.acts[end]))]

    def acknowledgements(self):
        """The moments at which a command has just told that it is done."""
        return [end + 1 for end, act in enumerate(self.acts) if act.text is not None]

    def survivors(self, end, kind, random):
        """Places of the acts before `end` that are there; of the writes that are only partly, the bytes; those that left zeros."""
        if kind == "killed":
            return set(range(end)), {}, set()
        covered = self.by_any if kind == "ordered" else self.by_own
        there = {index for index in range(end) if covered[index] is not None and covered[index] < end}
        if kind == "least":
            return there, {}, set()
        open_acts = [index for index in range(end) if index not in there and (self.acts[index].data or self.acts[index].directories)]
        names = [index for index in open_acts if not self.acts[index].data]
        if kind == "ordered":
            there |= set(names[:random.randint(0, len(names))])
        else:
            likely = random.choice((0, 0.3, 0.7, 1))
            there |= {index for index in names if random.random() < likely}
        cut, zeros = {}, set()
        files = {}
        for index in open_acts:
            if self.acts[index].data:
                files.setdefault(self.acts[index].file, []).append(index)
        for acts in files.values():
            if kind == "hostile" and random.random() < 0.3:
                there |= {index for index in acts if random.random() < 0.5}
                continue
            length = random.choice((0, len(acts), random.randint(0, len(acts))))
            there |= set(acts[:length])
            if length and self.acts[acts[length - 1]].word == "write" and random.random() < 0.5:
                last = acts[length - 1]
                if kind == "hostile" and random.random() < 0.5:
                    zeros.add(last)
                else:
                    cut[last] = random.randint(0, int(self.acts[last].rest[2]) // 512) * 512
        return there, cut, zeros


class Image:
    """One home after a failure, made in a directory of its own."""

    def __init__(self, log, before, end, kind, random):
        self.log, self.before = log, pathlib.Path(before)
        self.directories = {1: {}}
        self.sources, self.contents, self.created = {}, {}, {}
        paths = {1: self.before}
        for act in log.had:
            paths[act.file] = paths[act.directories[0]] / act.name
            self.sources.setdefault(act.file, paths[act.file])
            self.directories.setdefault(act.directories[0], {})[act.name] = act.file
        there, self.cut, self.zeros = log.survivors(end, kind, random)
        for index in range(end):
            if log.acts[index].word == "make":  # a file without a name may get one
                self.created[log.acts[index].file] = log.acts[index]
            if index in there:
                self.apply(index, log.acts[index])

    def apply(self, index, act):
        inside = lambda number: self.directories.setdefault(number, {})
        if act.word in ("make", "link"):
            inside(act.directories[0])[act.name] = act.file
        elif act.word == "remove":
            if inside(act.directories[0]).get(act.name) == act.file or act.file == 0:
                inside(act.directories[0]).pop(act.name, None)
        elif act.word == "rename":
            if inside(act.directories[0]).get(act.name) == act.file:
                del inside(act.directories[0])[act.name]
            inside(act.directories[1])[act.to] = act.file
        elif act.data:
            self.contents.setdefault(act.file, []).append((index, act))

    def write(self, target, user, group):
        self.user, self.group, self.done = user, group, {}
        target = pathlib.Path(target)
        target.mkdir(mode=0o711)
        shutil.copystat(self.before, target)
        os.chown(target, user, group)
        self.fill(target, 1)

    def fill(self, place, number):
        for name, child in self.directories.get(number, {}).items():
            # Templates are large, and are made again when they are missing.
            if (number, name) != (1, "templates"):
                self.put(place / name, child)

    def put(self, path, number):
        source, made = self.sources.get(number), self.created.get(number)
        kind = self.log.types.get(number, "f")
        if kind == "d":
            if number in self.done:  # it can only have one name
                return
            self.done[number] = path
            path.mkdir()
            self.fill(path, number)
        elif number in self.done:
            os.link(self.done[number], path)
            return
        elif kind == "l":
            path.symlink_to(os.readlink(source) if source else made.rest[5])
        elif kind == "f":
            self.done[number] = path
            if source and number not in self.contents and source.stat().st_size > SMALL and self.never_written(source):
                os.link(source, path)
                return
            self.put_file(path, number, source)
        else:
            return  # a socket means nothing after the machine has gone
        if kind != "l":
            os.chmod(path, stat.S_IMODE(source.stat().st_mode) if source else int(made.rest[4], 8) if made else 0o600)
            if source:
                for attribute in os.listxattr(source):
                    os.setxattr(path, attribute, os.getxattr(source, attribute))
            self.attributes(path, number)
        os.chown(path, self.user, self.group, follow_symlinks=False)

    def never_written(self, source):
        return source.relative_to(self.before).parts[0] in NEVER_WRITTEN

    def put_file(self, path, number, source):
        with open(path, "xb") as file:
            if source:
                with open(source, "rb") as old:
                    shutil.copyfileobj(old, file)
            for index, act in self.contents.get(number, ()):
                if act.word == "write":
                    offset, length, place = (int(word) for word in act.rest[1:4])
                    self.log.written.seek(place)
                    data = self.log.written.read(length)
                    if index in self.zeros:
                        data = bytes(len(data))
                    file.seek(offset)
                    file.write(data[:self.cut.get(index, len(data))])
                elif act.word == "size":
                    file.flush()
                    file.truncate(int(act.rest[1]))
                elif act.word == "hole":
                    file.flush()
                    size = os.fstat(file.fileno()).st_size
                    offset, length = int(act.rest[1]), int(act.rest[2])
                    for at in range(offset, min(offset + length, size), 1 << 20):
                        os.pwrite(file.fileno(), bytes(min(1 << 20, min(offset + length, size) - at)), at)

    def attributes(self, path, number):
        for _, act in self.contents.get(number, ()):
            if act.word == "mode":
                os.chmod(path, int(act.rest[1], 8))
            elif act.word == "attribute":
                os.setxattr(path, act.rest[1], bytes.fromhex(act.rest[2]))
            elif act.word == "noattribute" and act.rest[1] in os.listxattr(path):
                os.removexattr(path, act.rest[1])

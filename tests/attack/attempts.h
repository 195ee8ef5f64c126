// What a taken-over process may try, by the names of attempt_table.h. Without anything of caisson but these two files, so
// that a static program can be made of them.
#pragma once

#include <span>

namespace caisson::attack {

struct Attempt {
    const char* id;
    long (*make)();  // less than 0: refused, and errno says how
};

std::span<const Attempt> attempts();
// Where the attempts go: a word NAME=VALUE, see Target in attempts.cc. The text stays the caller's. After only=ID no
// attempt makes a child for what it does.
void aim(const char* word);
// Is this attempt to be made, and is it the only one?
bool only(const char* id);
bool one_alone();
// 0 if it succeeded, else the errno.
int try_once(const Attempt& attempt);

}  // namespace caisson::attack

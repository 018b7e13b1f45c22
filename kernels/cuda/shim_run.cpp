// The kernels as a program that serves requests on standard input: memory, copies, launches. tools/cuda/shim_device.py
// speaks to it, so that the decoder's own host code drives the kernels on a CPU and under the sanitizers.
//
// A request: one byte, then fields (little-endian u64 unless said otherwise).
//   A size                                                    allocate -> address
//   F address                                                 free
//   W address size bytes                                      write
//   R address size                                            read -> size bytes
//   L name grid_x grid_y grid_z threads shared count (size bytes)*   launch; name and arguments as size and bytes
// The answer: u64 length of a sentence, the sentence ("" = done), then what "->" says. End of input ends the program.
#include <unistd.h>

#include <cstdlib>
#include <map>

#include "shim.h"

namespace {

std::map<std::uint64_t, std::uint64_t> sizes;  // of every allocation, by address

void *at(std::uint64_t address) { return reinterpret_cast<void *>(static_cast<std::uintptr_t>(address)); }

void read_exactly(void *to, std::uint64_t size) {
    for (char *next = static_cast<char *>(to); size > 0;) {
        const ssize_t got = ::read(0, next, size);
        if (got <= 0) std::exit(0);
        next += got;
        size -= static_cast<std::uint64_t>(got);
    }
}

void write_exactly(const void *from, std::uint64_t size) {
    for (const char *next = static_cast<const char *>(from); size > 0;) {
        const ssize_t put = ::write(1, next, size);
        if (put <= 0) std::exit(1);
        next += put;
        size -= static_cast<std::uint64_t>(put);
    }
}

std::uint64_t number() {
    std::uint64_t value;
    read_exactly(&value, sizeof value);
    return value;
}

std::string text() {
    std::string bytes(number(), '\0');
    read_exactly(bytes.data(), bytes.size());
    return bytes;
}

void answer(const std::string &sentence) {
    const std::uint64_t size = sentence.size();
    write_exactly(&size, sizeof size);
    write_exactly(sentence.data(), size);
}

bool owned(std::uint64_t address, std::uint64_t size) {
    auto after = sizes.upper_bound(address);
    if (after == sizes.begin()) return false;
    --after;
    return size <= after->second && address - after->first <= after->second - size;
}

const char *const kNotOurs = "expected a range of allocated memory, got one that is not";

void allocate() {
    const std::uint64_t size = number();
    void *memory = std::malloc(size);
    std::memset(memory, 0xff, size);
    const auto address = static_cast<std::uint64_t>(reinterpret_cast<std::uintptr_t>(memory));
    sizes[address] = size;
    answer("");
    write_exactly(&address, sizeof address);
}

void release() {
    const std::uint64_t address = number();
    if (sizes.erase(address) == 0) return answer(kNotOurs);
    std::free(at(address));
    answer("");
}

void write() {
    const std::uint64_t address = number(), size = number();
    if (!owned(address, size)) {
        std::string unused(size, '\0');
        read_exactly(unused.data(), size);
        return answer(kNotOurs);
    }
    read_exactly(at(address), size);
    answer("");
}

void read() {
    const std::uint64_t address = number(), size = number();
    if (!owned(address, size)) return answer(kNotOurs);
    answer("");
    write_exactly(at(address), size);
}

void launch() {
    const std::string name = text();
    const std::uint64_t x = number(), y = number(), z = number(), threads = number(), shared = number();
    std::vector<std::string> values(number());
    std::vector<shim::Argument> arguments;
    for (std::string &value : values) {
        value = text();
        arguments.push_back({value.data(), value.size()});
    }
    const shim::Index grid{static_cast<unsigned>(x), static_cast<unsigned>(y), static_cast<unsigned>(z)};
    answer(shim::launch(name, grid, static_cast<unsigned>(threads), shared, arguments));
}

}  // namespace

int main() {
    for (;;) {
        char request;
        read_exactly(&request, 1);
        switch (request) {
            case 'A': allocate(); break;
            case 'F': release(); break;
            case 'W': write(); break;
            case 'R': read(); break;
            case 'L': launch(); break;
            default: return 2;
        }
    }
}

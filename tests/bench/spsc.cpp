// A single-producer single-consumer queue of 64-byte messages between two pinned threads: what compiled C++ does here.
//
// A bounded array; each side keeps its last sight of the other's index and looks again only where that says full or empty.
// Prints messages a second.
//
//   g++ -O3 -march=native -pthread spsc.cpp -o spsc && ./spsc MESSAGES PRODUCER_CPU CONSUMER_CPU

#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <pthread.h>
#include <thread>
#include <vector>

struct Message { std::uint64_t number; std::uint64_t rest[7]; };

class Queue {
public:
    explicit Queue(std::size_t slots) : mask_(slots - 1), cells_(slots) {}

    bool push(const Message &m) {
        const auto tail = tail_.load(std::memory_order_relaxed);
        if (tail - head_seen_ > mask_) {
            head_seen_ = head_.load(std::memory_order_acquire);
            if (tail - head_seen_ > mask_) return false;
        }
        cells_[tail & mask_] = m;
        tail_.store(tail + 1, std::memory_order_release);
        return true;
    }

    bool pop(Message &m) {
        const auto head = head_.load(std::memory_order_relaxed);
        if (head == tail_seen_) {
            tail_seen_ = tail_.load(std::memory_order_acquire);
            if (head == tail_seen_) return false;
        }
        m = cells_[head & mask_];
        head_.store(head + 1, std::memory_order_release);
        return true;
    }

private:
    const std::size_t mask_;
    std::vector<Message> cells_;
    alignas(128) std::atomic<std::size_t> tail_{0};
    std::size_t head_seen_ = 0;
    alignas(128) std::atomic<std::size_t> head_{0};
    std::size_t tail_seen_ = 0;
};

static void pin(int cpu) {
    if (cpu < 0) return;
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    pthread_setaffinity_np(pthread_self(), sizeof set, &set);
}

int main(int argc, char **argv) {
    const std::uint64_t messages = argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 20'000'000;
    const int producer = argc > 3 ? std::atoi(argv[2]) : -1, consumer = argc > 3 ? std::atoi(argv[3]) : -1;
    static Queue queue(1 << 14);
    std::uint64_t wrong = 0;
    std::thread reader([&] {
        pin(consumer);
        Message m;
        for (std::uint64_t i = 0; i < messages; ++i) {
            while (!queue.pop(m)) {}
            wrong += m.number != i;
        }
    });
    pin(producer);
    Message m{};
    const auto began = std::chrono::steady_clock::now();
    for (std::uint64_t i = 0; i < messages; ++i) {
        m.number = i;
        while (!queue.push(m)) {}
    }
    reader.join();
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - began;
    std::printf("%.0f\n", messages / took.count());
    return wrong != 0;
}

// The fused neuron of training on a CPU, float32: every array crosses memory once.
//
// It repeats the step of network/dynamics.py (integrate, decide, reset): a rounded product, then a
// rounded sum, never fused (-ffp-contract=off), so its spikes equal the eager path's bit for bit.
// Every element is computed alone, hence vector width and number of threads change no result.

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdlib>
#include <optional>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "general.hpp"
#include "plain.hpp"

namespace {

namespace py = pybind11;

enum class Isa { BASE, V3, V4 };

// What is chosen when it runs: the code compiled for this neuron and this machine.
struct Form {
    Surrogate surrogate;
    Isa isa;
};

// One function per instruction set and form, chosen at run time: all of `run` is inlined into it.
#define TARGET(NAME, BYTES, ATTRIBUTE)                                                \
    template <class Reset, int SURROGATE, class Job>                                  \
    ATTRIBUTE void NAME(const Job& job, std::int64_t begin, std::int64_t end) {       \
        run<Vector<BYTES>, Reset, SURROGATE>(job, begin, end);                        \
    }

TARGET(run_base, 16, )
#if defined(__x86_64__)
TARGET(run_v3, 32, __attribute__((target("arch=x86-64-v3"))))
TARGET(run_v4, 64, __attribute__((target("arch=x86-64-v4"))))
#endif

template <class Reset, int SURROGATE, class Job>
void by_isa(const Form& form, const Job& job, std::int64_t begin, std::int64_t end) {
#if defined(__x86_64__)
    if (form.isa == Isa::V4) return run_v4<Reset, SURROGATE>(job, begin, end);
    if (form.isa == Isa::V3) return run_v3<Reset, SURROGATE>(job, begin, end);
#endif
    run_base<Reset, SURROGATE>(job, begin, end);
}

template <class Reset, class Job>
void by_surrogate(const Form& form, const Job& job, std::int64_t begin, std::int64_t end) {
    switch (form.surrogate) {
        case SIGMOID: return by_isa<Reset, SIGMOID>(form, job, begin, end);
        case TRIANGLE: return by_isa<Reset, TRIANGLE>(form, job, begin, end);
        case RECTANGLE: return by_isa<Reset, RECTANGLE>(form, job, begin, end);
        case ARCTAN: return by_isa<Reset, ARCTAN>(form, job, begin, end);
        case FAST_SIGMOID: return by_isa<Reset, FAST_SIGMOID>(form, job, begin, end);
    }
}

// Plain neurons: every reset is compiled for itself.
template <class Job>
void run_here(const Form& form, const Job& job, std::int64_t begin, std::int64_t end) {
    if (job.neuron.subtract && job.neuron.detach)
        by_surrogate<Fixed<true, true>>(form, job, begin, end);
    else if (job.neuron.subtract)
        by_surrogate<Fixed<true, false>>(form, job, begin, end);
    else if (job.neuron.detach)
        by_surrogate<Fixed<false, true>>(form, job, begin, end);
    else
        by_surrogate<Fixed<false, false>>(form, job, begin, end);
}

// Without a gradient there is neither a surrogate nor a reset that is detached or not.
void run_here(const Form& form, const Forward& job, std::int64_t begin, std::int64_t end) {
    if (job.neuron.subtract)
        by_isa<Fixed<true, true>, SIGMOID>(form, job, begin, end);
    else
        by_isa<Fixed<false, true>, SIGMOID>(form, job, begin, end);
}

void run_here(const Form& form, const GeneralForward& job, std::int64_t begin, std::int64_t end) {
    by_isa<Told, SIGMOID>(form, job, begin, end);
}

void run_here(const Form& form, const GeneralStream& job, std::int64_t begin, std::int64_t end) {
    by_surrogate<Told>(form, job, begin, end);
}

void run_here(const Form& form, const GeneralBackward& job, std::int64_t begin,
              std::int64_t end) {
    by_surrogate<Told>(form, job, begin, end);
}

template <class Job>
void run_all(const Form& form, const Job& job, std::int64_t size, int threads) {
    py::gil_scoped_release unlocked;
    const std::int64_t blocks = (size + BLOCK - 1) / BLOCK;
    const std::int64_t parts = std::max<std::int64_t>(1, std::min<std::int64_t>(threads, blocks));
    const auto edge = [&](std::int64_t part) {
        return std::min(size, blocks * part / parts * BLOCK);
    };
    const auto work = [&](std::int64_t part) { run_here(form, job, edge(part), edge(part + 1)); };
    std::vector<std::thread> others;
    others.reserve(static_cast<std::size_t>(parts));
    for (std::int64_t part = 1; part < parts; ++part) {
        try {
            others.emplace_back(work, part);
        } catch (const std::system_error&) {  // no more threads to be had: this one does it
            work(part);
        }
    }
    work(0);
    for (auto& other : others) other.join();
}

using Array = py::array_t<float>;

struct Extent {
    std::int64_t steps;
    std::int64_t size;
};

[[noreturn]] void refuse(const char* name, const char* what) {
    throw std::invalid_argument(std::string(name) + " must be " + what);
}

void check(const Array& array, const char* name, const Extent& extent) {
    if (array.ndim() != 2 || array.shape(0) != extent.steps || array.shape(1) != extent.size)
        refuse(name, "(T, N) of the same size as the first array");
    if (array.size() && array.shape(1) > 1 && array.strides(1) != sizeof(float))
        refuse(name, "rows without gaps");
    if (array.strides(0) < 0 || array.strides(0) % sizeof(float))
        refuse(name, "rows at a step of whole floats");
}

Rows<const float> reads(const Array& array, const char* name, const Extent& extent) {
    check(array, name, extent);
    return {array.data(), static_cast<std::int64_t>(array.strides(0) / sizeof(float))};
}

Rows<float> writes(Array& array, const char* name, const Extent& extent) {
    check(array, name, extent);
    const std::int64_t step = array.strides(0) / sizeof(float);
    if (extent.steps > 1 && step < extent.size) refuse(name, "rows that do not overlap");
    return {array.mutable_data(), step};
}

Extent extent_of(const Array& array) {
    if (array.ndim() != 2 || array.shape(0) < 1) refuse("the first array", "(T, N) with T >= 1");
    return {array.shape(0), array.shape(1)};
}

Isa widest() {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
        __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2")) {
        const bool v4 =
            __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
            __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
            __builtin_cpu_supports("avx512vl");
        return v4 ? Isa::V4 : Isa::V3;
    }
#endif
    return Isa::BASE;
}

// The widest instruction set of this machine, or the one that SNNPIPE_ISA asks for (tests do).
Isa chosen() {
    const char* asked = std::getenv("SNNPIPE_ISA");
    const Isa most = widest();
    if (asked == nullptr || *asked == '\0') return most;
    const std::string name = asked;
    for (const auto& [known, isa] : {std::pair<std::string, Isa>{"base", Isa::BASE},
                                     {"v3", Isa::V3},
                                     {"v4", Isa::V4}})
        if (name == known && isa <= most) return isa;
    refuse("SNNPIPE_ISA", "base, v3 or v4, and within this machine");
}

struct Settings {
    Neuron neuron;
    Form form;
    int threads;
    std::optional<Array> thresholds;
};

Settings settings(float decay, std::optional<float> synaptic_decay, float threshold,
                  std::optional<Array> thresholds, bool at_threshold, bool subtract, bool detach,
                  bool cut, const std::string& surrogate, float width, int threads) {
    for (const Surrogate known : {SIGMOID, TRIANGLE, RECTANGLE, ARCTAN, FAST_SIGMOID})
        if (surrogate == SURROGATES[known])
            return {{decay, synaptic_decay.value_or(0.0f), synaptic_decay.has_value(), threshold,
                     nullptr, at_threshold, subtract, detach, cut, width},
                    {known, chosen()},
                    threads,
                    thresholds};
    refuse("surrogate", "one of SURROGATES");
}

Neuron neuron_of(const Settings& with, const Extent& extent) {
    Neuron neuron = with.neuron;
    if (with.thresholds)
        neuron.thresholds = reads(*with.thresholds, "thresholds", {1, extent.size}).data;
    return neuron;
}

float* row_of(std::optional<Array>& array, const char* name, const Extent& extent) {
    return array ? writes(*array, name, {1, extent.size}).data : nullptr;
}

using Asked = std::vector<std::vector<std::vector<std::optional<Array>>>>;

Slopes slopes_of(std::vector<std::vector<std::optional<Array>>>& window, const Extent& extent) {
    Slopes slopes = {};
    if (window.size() != SOURCES) refuse("slopes", "of 5 sources in each window");
    for (std::size_t source = 0; source < SOURCES; ++source) {
        if (window[source].size() != PARTS) refuse("slopes", "of 3 parts for each source");
        for (std::size_t part = 0; part < PARTS; ++part)
            slopes[source][part] = row_of(window[source][part], "slopes", extent);
    }
    return slopes;
}

bool is_plain(const Neuron& neuron) { return !neuron.cuba && neuron.thresholds == nullptr; }

// Whether nothing but the eligibility over one window is asked for.
bool is_plain(const std::vector<Slopes>& windows) {
    std::size_t asked = 0;
    for (const auto& parts : windows[0])
        for (const float* part : parts) asked += part != nullptr;
    return windows.size() == 1 && asked == 1 && windows[0][OFFSET][RATE] != nullptr;
}

void stream(const Array& current, Array spikes, Array rates, Asked asked, const Settings& with) {
    const Extent extent = extent_of(current);
    const std::int64_t windows = static_cast<std::int64_t>(asked.size());
    if (windows < 1 || extent.steps % windows) refuse("slopes", "of windows of equally many steps");
    const Neuron neuron = neuron_of(with, extent);
    std::vector<Slopes> slopes;
    for (auto& window : asked) slopes.push_back(slopes_of(window, extent));
    const Rows<const float> from = reads(current, "current", extent);
    const Rows<float> fired = writes(spikes, "spikes", extent);
    const Rows<float> rate = writes(rates, "rates", {windows, extent.size});
    if (is_plain(neuron) && is_plain(slopes)) {
        const Stream job = {neuron, extent.steps, from, fired, rate.data, slopes[0][OFFSET][RATE]};
        return run_all(with.form, job, extent.size, with.threads);
    }
    const GeneralStream job = {neuron, extent.steps / windows, from, fired, rate, slopes};
    run_all(with.form, job, extent.size, with.threads);
}

void forward(const Array& current, Array spikes, std::optional<Array> membrane,
             const Settings& with) {
    const Extent extent = extent_of(current);
    const Forward job = {neuron_of(with, extent), extent.steps, reads(current, "current", extent),
                         writes(spikes, "spikes", extent),
                         membrane ? writes(*membrane, "membrane", extent)
                                  : Rows<float>{nullptr, 0}};
    if (is_plain(job.neuron)) return run_all(with.form, job, extent.size, with.threads);
    const GeneralForward general = {job.neuron, job.steps, job.current, job.spikes, job.membrane};
    run_all(with.form, general, extent.size, with.threads);
}

void backward(const Array& gradient, const Array& membrane, Array current,
              std::optional<Array> decay, std::optional<Array> synaptic_decay,
              const Settings& with) {
    const Extent extent = extent_of(gradient);
    const Backward job = {neuron_of(with, extent), extent.steps,
                          reads(gradient, "gradient", extent),
                          reads(membrane, "membrane", extent), writes(current, "current", extent)};
    if (is_plain(job.neuron) && !decay && !synaptic_decay)
        return run_all(with.form, job, extent.size, with.threads);
    const GeneralBackward general = {
        job.neuron,   job.steps,   job.gradient,
        job.membrane, job.current, row_of(decay, "decay", extent),
        row_of(synaptic_decay, "synaptic_decay", extent)};
    run_all(with.form, general, extent.size, with.threads);
}

}  // namespace

PYBIND11_MODULE(_neuron, module) {
    using py::arg;
    module.doc() = "The fused neuron of training: float32 rows (T, N) in, filled in place.";
    module.attr("SURROGATES") = std::vector<std::string>(std::begin(SURROGATES),
                                                         std::end(SURROGATES));
    py::class_<Settings>(module, "Settings")
        .def(py::init(&settings), py::kw_only(), arg("decay"), arg("synaptic_decay"),
             arg("threshold"), arg("thresholds").noconvert(), arg("at_threshold"),
             arg("subtract"), arg("detach"), arg("cut"), arg("surrogate"), arg("width"),
             arg("threads"));
    module.def("stream", &stream, arg("current").noconvert(), arg("spikes").noconvert(),
               arg("rates").noconvert(), arg("slopes").noconvert(), arg("settings"));
    module.def("forward", &forward, arg("current").noconvert(), arg("spikes").noconvert(),
               arg("membrane").noconvert().none(true), arg("settings"));
    module.def("backward", &backward, arg("gradient").noconvert(), arg("membrane").noconvert(),
               arg("current").noconvert(), arg("decay").noconvert().none(true),
               arg("synaptic_decay").noconvert().none(true), arg("settings"));
}

// The fused neuron of training on a CPU, float32: every array crosses memory once.
//
// It repeats the step of network/dynamics.py (integrate, decide, reset): a rounded product, then a
// rounded sum, never fused (-ffp-contract=off), so its spikes equal the eager path's bit for bit.
// Every element is computed alone, hence vector width and number of threads change no result.
//
// Arrays are rows of memory, (T, N): row t starts at `data + t * step`, its N floats lie together.
// A step of 0 shows the same row at every t.

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <optional>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "vector.hpp"

namespace {

namespace py = pybind11;

// Elements that go through a step together where the state is one float each and waits in the
// first-level cache; threads part the elements at multiples of this.
constexpr std::int64_t BLOCK = 1024;

enum Surrogate { SIGMOID, TRIANGLE };

struct Neuron {
    float decay;
    float threshold;
    float fires_at;  // the smallest float that fires
    float width;
};

template <class Float>
struct Rows {
    Float* data;
    std::int64_t step;
    Float* at(std::int64_t t, std::int64_t i) const { return data + t * step + i; }
};

// Surrogate derivative h(x), x = u - threshold; unit area, peak 1 / width.
template <class V, int SURROGATE>
INLINE typename V::F surrogate(const typename V::F& x, float width) {
    using F = typename V::F;
    if (SURROGATE == SIGMOID) {
        const float alpha = 4.0f / width;
        const F z = exp_negative<V>(magnitude<V>(x) * -alpha);
        const F one = z + 1.0f;
        return alpha * z / (one * one);
    }
    const float slope = 1.0f / width;
    const F h = slope - magnitude<V>(x) * (slope * slope);
    return keep<V>(h > 0.0f, h);
}

// Derivative of the membrane after the reset with respect to the membrane before it.
template <class V, bool SUBTRACT, bool DETACH>
INLINE typename V::F through_reset(const typename V::F& u, const typename V::F& spike,
                                   const typename V::F& h, const Neuron& neuron) {
    using F = typename V::F;
    if (SUBTRACT) return DETACH ? F{} + 1.0f : 1.0f - neuron.threshold * h;
    return DETACH ? 1.0f - spike : 1.0f - spike - u * h;
}

template <class V, bool SUBTRACT>
INLINE typename V::F after_reset(const typename V::F& u, const typename V::F& spike,
                                 const Neuron& neuron) {
    return SUBTRACT ? u - neuron.threshold * spike : u - u * spike;
}

struct Stream {
    Neuron neuron;
    std::int64_t steps;
    Rows<const float> current;
    Rows<float> spikes;
    float* rate;
    float* kappa;
};

// Spikes, their mean over time, and the eligibility kappa = (1/T) sum_t h(u_t - threshold) e_t with
// e_0 = 1, e_{t+1} = 1 + decay * through_reset_t * e_t (arXiv 2410.11488). A vector of neurons goes
// through all steps with its four states in registers: in blocks the states' traffic costs more.
template <class V, bool SUBTRACT, bool DETACH, int SURROGATE>
INLINE void run(const Stream& job, std::int64_t begin, std::int64_t end) {
    using F = typename V::F;
    const Neuron neuron = job.neuron;
    const float steps = static_cast<float>(job.steps);
    const F one = F{} + 1.0f;
    for (std::int64_t i = begin; i < end; i += V::lanes) {
        F v = {}, sum = {}, count = {}, eligible = one;
        for (std::int64_t t = 0; t < job.steps; ++t) {
            const F u = neuron.decay * v + load<V>(job.current.at(t, i), end - i);
            const F spike = keep<V>(u >= neuron.fires_at, one);
            const F h = surrogate<V, SURROGATE>(u - neuron.threshold, neuron.width);
            const F rho = through_reset<V, SUBTRACT, DETACH>(u, spike, h, neuron);
            store<V>(job.spikes.at(t, i), spike, end - i);
            sum = sum + h * eligible;
            count = count + spike;
            eligible = 1.0f + neuron.decay * rho * eligible;
            v = after_reset<V, SUBTRACT>(u, spike, neuron);
        }
        store<V>(job.kappa + i, sum / steps, end - i);
        store<V>(job.rate + i, count / steps, end - i);
    }
}

struct Forward {
    Neuron neuron;
    std::int64_t steps;
    Rows<const float> current;
    Rows<float> spikes;
    Rows<float> membrane;  // before the decision; data is null when nobody wants it
};

template <class V, bool SUBTRACT, bool, int>
INLINE void run(const Forward& job, std::int64_t begin, std::int64_t end) {
    using F = typename V::F;
    const Neuron neuron = job.neuron;
    const F one = F{} + 1.0f;
    const bool keeps = job.membrane.data != nullptr;
    alignas(64) float v[BLOCK];
    for (std::int64_t b = begin; b < end; b += BLOCK) {
        const std::int64_t n = std::min(BLOCK, end - b);
        std::fill_n(v, BLOCK, 0.0f);
        for (std::int64_t t = 0; t < job.steps; ++t) {
            const float* c = job.current.at(t, b);
            float* s = job.spikes.at(t, b);
            float* m = keeps ? job.membrane.at(t, b) : nullptr;
            for (std::int64_t i = 0; i < n; i += V::lanes) {
                const F u = neuron.decay * load<V>(v + i, BLOCK) + load<V>(c + i, n - i);
                const F spike = keep<V>(u >= neuron.fires_at, one);
                store<V>(s + i, spike, n - i);
                if (keeps) store<V>(m + i, u, n - i);
                store<V>(v + i, after_reset<V, SUBTRACT>(u, spike, neuron), BLOCK);
            }
        }
    }
}

struct Backward {
    Neuron neuron;
    std::int64_t steps;
    Rows<const float> gradient;  // with respect to the spikes
    Rows<const float> membrane;
    Rows<float> current;  // gradient with respect to the current
};

// du_t = h(u_t - threshold) ds_t + decay * through_reset_t * du_{t+1}; dc_t = du_t.
template <class V, bool SUBTRACT, bool DETACH, int SURROGATE>
INLINE void run(const Backward& job, std::int64_t begin, std::int64_t end) {
    using F = typename V::F;
    const Neuron neuron = job.neuron;
    const F one = F{} + 1.0f;
    alignas(64) float later[BLOCK];
    for (std::int64_t b = begin; b < end; b += BLOCK) {
        const std::int64_t n = std::min(BLOCK, end - b);
        std::fill_n(later, BLOCK, 0.0f);
        for (std::int64_t t = job.steps - 1; t >= 0; --t) {
            const float* g = job.gradient.at(t, b);
            const float* m = job.membrane.at(t, b);
            float* c = job.current.at(t, b);
            for (std::int64_t i = 0; i < n; i += V::lanes) {
                const F u = load<V>(m + i, n - i);
                const F spike = keep<V>(u >= neuron.fires_at, one);
                const F h = surrogate<V, SURROGATE>(u - neuron.threshold, neuron.width);
                const F rho = through_reset<V, SUBTRACT, DETACH>(u, spike, h, neuron);
                const F du = h * load<V>(g + i, n - i) +
                             neuron.decay * rho * load<V>(later + i, BLOCK);
                store<V>(c + i, du, n - i);
                store<V>(later + i, du, BLOCK);
            }
        }
    }
}

enum class Isa { BASE, V3, V4 };

struct Form {
    bool subtract;
    bool detach;
    Surrogate surrogate;
    Isa isa;
};

template <class V, bool SUBTRACT, bool DETACH, class Job>
INLINE void choose(const Form& form, const Job& job, std::int64_t begin, std::int64_t end) {
    if (form.surrogate == SIGMOID)
        run<V, SUBTRACT, DETACH, SIGMOID>(job, begin, end);
    else
        run<V, SUBTRACT, DETACH, TRIANGLE>(job, begin, end);
}

template <class V, class Job>
INLINE void choose(const Form& form, const Job& job, std::int64_t begin, std::int64_t end) {
    if (form.subtract && form.detach)
        choose<V, true, true>(form, job, begin, end);
    else if (form.subtract)
        choose<V, true, false>(form, job, begin, end);
    else if (form.detach)
        choose<V, false, true>(form, job, begin, end);
    else
        choose<V, false, false>(form, job, begin, end);
}

// One thin function per instruction set, chosen at run time: everything below is inlined into it.
#define TARGET(NAME, BYTES, ATTRIBUTE)                                                        \
    template <class Job>                                                                      \
    ATTRIBUTE void NAME(const Form& form, const Job& job, std::int64_t begin,                 \
                        std::int64_t end) {                                                   \
        choose<Vector<BYTES>>(form, job, begin, end);                                         \
    }

TARGET(run_base, 16, )
#if defined(__x86_64__)
TARGET(run_v3, 32, __attribute__((target("arch=x86-64-v3"))))
TARGET(run_v4, 64, __attribute__((target("arch=x86-64-v4"))))
#endif

template <class Job>
void run_here(const Form& form, const Job& job, std::int64_t begin, std::int64_t end) {
#if defined(__x86_64__)
    if (form.isa == Isa::V4) return run_v4(form, job, begin, end);
    if (form.isa == Isa::V3) return run_v3(form, job, begin, end);
#endif
    run_base(form, job, begin, end);
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
};

Settings settings(float decay, float threshold, bool at_threshold, bool subtract, bool detach,
                  const std::string& surrogate, float width, int threads) {
    if (surrogate != "sigmoid" && surrogate != "triangle")
        refuse("surrogate", "sigmoid or triangle");
    // u > threshold is u >= the next float above it.
    const float fires_at =
        at_threshold ? threshold
                     : std::nextafter(threshold, std::numeric_limits<float>::infinity());
    return {{decay, threshold, fires_at, width},
            {subtract, detach, surrogate == "sigmoid" ? SIGMOID : TRIANGLE, chosen()},
            threads};
}

void stream(const Array& current, Array spikes, Array rate, Array kappa, const Settings& with) {
    const Extent extent = extent_of(current), row = {1, extent.size};
    const Stream job = {with.neuron,
                        extent.steps,
                        reads(current, "current", extent),
                        writes(spikes, "spikes", extent),
                        writes(rate, "rate", row).data,
                        writes(kappa, "kappa", row).data};
    run_all(with.form, job, extent.size, with.threads);
}

void forward(const Array& current, Array spikes, std::optional<Array> membrane,
             const Settings& with) {
    const Extent extent = extent_of(current);
    const Forward job = {with.neuron, extent.steps, reads(current, "current", extent),
                         writes(spikes, "spikes", extent),
                         membrane ? writes(*membrane, "membrane", extent)
                                  : Rows<float>{nullptr, 0}};
    run_all(with.form, job, extent.size, with.threads);
}

void backward(const Array& gradient, const Array& membrane, Array current,
              const Settings& with) {
    const Extent extent = extent_of(gradient);
    const Backward job = {with.neuron, extent.steps, reads(gradient, "gradient", extent),
                          reads(membrane, "membrane", extent),
                          writes(current, "current", extent)};
    run_all(with.form, job, extent.size, with.threads);
}

}  // namespace

PYBIND11_MODULE(_neuron, module) {
    using py::arg;
    module.doc() = "The fused neuron of training: float32 rows (T, N) in, filled in place.";
    py::class_<Settings>(module, "Settings")
        .def(py::init(&settings), py::kw_only(), arg("decay"), arg("threshold"),
             arg("at_threshold"), arg("subtract"), arg("detach"), arg("surrogate"), arg("width"),
             arg("threads"));
    module.def("stream", &stream, arg("current").noconvert(), arg("spikes").noconvert(),
               arg("rate").noconvert(), arg("kappa").noconvert(), arg("settings"));
    module.def("forward", &forward, arg("current").noconvert(), arg("spikes").noconvert(),
               arg("membrane").noconvert().none(true), arg("settings"));
    module.def("backward", &backward, arg("gradient").noconvert(), arg("membrane").noconvert(),
               arg("current").noconvert(), arg("settings"));
}

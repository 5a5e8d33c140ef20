// LIF and IF with one threshold and a given decay: what nearly every network is made of, so every
// form of it is compiled for itself.

#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

#include "neuron.hpp"

namespace {

// Elements that go through a step together where the state is one float each and waits in the
// first-level cache; threads part the elements at multiples of this.
constexpr std::int64_t BLOCK = 1024;

inline Level<float> level(const Neuron& neuron) {
    const float above = std::numeric_limits<float>::infinity();
    const float threshold = neuron.threshold;
    return {threshold, neuron.at_threshold ? threshold : std::nextafter(threshold, above)};
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
// e_0 = 1, e_{t+1} = 1 + decay * through_t * e_t (arXiv 2410.11488). A vector of neurons goes
// through all steps with its four states in registers: in blocks the states' traffic costs more.
template <class V, class Reset, int SURROGATE>
INLINE void run(const Stream& job, std::int64_t begin, std::int64_t end) {
    using F = typename V::F;
    const Neuron neuron = job.neuron;
    const typename Reset::template On<V> reset(neuron);
    const Derivative<V, SURROGATE> surrogate(neuron.width);
    const Level<float> at = level(neuron);
    const float steps = static_cast<float>(job.steps);
    for (std::int64_t i = begin; i < end; i += V::lanes) {
        F v = {}, sum = {}, count = {}, eligible = F{} + 1.0f;
        for (std::int64_t t = 0; t < job.steps; ++t) {
            const F u = neuron.decay * v + load<V>(job.current.at(t, i), end - i);
            const F spike = decide<V>(u, at);
            const F h = surrogate(u - at.threshold);
            const F rho = reset.through(u, spike, h, at.threshold);
            store<V>(job.spikes.at(t, i), spike, end - i);
            sum = sum + h * eligible;
            count = count + spike;
            eligible = 1.0f + neuron.decay * rho * eligible;
            v = reset.after(u, spike, at.threshold);
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

template <class V, class Reset, int>
INLINE void run(const Forward& job, std::int64_t begin, std::int64_t end) {
    using F = typename V::F;
    const Neuron neuron = job.neuron;
    const typename Reset::template On<V> reset(neuron);
    const Level<float> at = level(neuron);
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
                const F spike = decide<V>(u, at);
                store<V>(s + i, spike, n - i);
                if (keeps) store<V>(m + i, u, n - i);
                store<V>(v + i, reset.after(u, spike, at.threshold), BLOCK);
            }
        }
    }
}

struct Backward {
    Neuron neuron;
    std::int64_t steps;
    Rows<const float> gradient;  // with respect to the spikes
    Rows<const float> membrane;  // before the decision
    Rows<float> current;         // gradient with respect to the current
};

// du_t = h(u_t - threshold) ds_t + decay * through_t * du_{t+1}; dc_t = du_t.
template <class V, class Reset, int SURROGATE>
INLINE void run(const Backward& job, std::int64_t begin, std::int64_t end) {
    using F = typename V::F;
    const Neuron neuron = job.neuron;
    const typename Reset::template On<V> reset(neuron);
    const Derivative<V, SURROGATE> surrogate(neuron.width);
    const Level<float> at = level(neuron);
    const float carried = neuron.cut ? 0.0f : neuron.decay;
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
                const F spike = decide<V>(u, at);
                const F h = surrogate(u - at.threshold);
                const F rho = reset.through(u, spike, h, at.threshold);
                const F du = h * load<V>(g + i, n - i) + carried * rho * load<V>(later + i, BLOCK);
                store<V>(c + i, du, n - i);
                store<V>(later + i, du, BLOCK);
            }
        }
    }
}

}  // namespace

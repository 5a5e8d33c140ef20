// All neurons: with a synaptic current, thresholds of their own, decays that are learned, windows of
// steps. The same step as in plain.hpp; a vector of neurons goes through all steps with its state.

#pragma once

#include <array>
#include <vector>

#include "neuron.hpp"

namespace {

template <class V>
INLINE Level<typename V::F> level_at(const Neuron& neuron, std::int64_t i, std::int64_t left) {
    using F = typename V::F;
    using I = typename V::I;
    const F threshold = neuron.thresholds == nullptr ? F{} + neuron.threshold
                                                     : load<V>(neuron.thresholds + i, left);
    // The bits of the next float above: thresholds are above 0 and finite.
    return {threshold, (F)((I)threshold + (neuron.at_threshold ? 0 : 1))};
}

struct GeneralForward {
    Neuron neuron;
    std::int64_t steps;
    Rows<const float> current;
    Rows<float> spikes;
    Rows<float> membrane;  // before the decision; data is null when nobody wants it
};

template <class V, class Reset, int>
INLINE void run(const GeneralForward& job, std::int64_t begin, std::int64_t end) {
    using F = typename V::F;
    const Neuron neuron = job.neuron;
    const typename Reset::template On<V> reset(neuron);
    for (std::int64_t i = begin; i < end; i += V::lanes) {
        const Level<F> at = level_at<V>(neuron, i, end - i);
        F v = {}, driven = {};
        for (std::int64_t t = 0; t < job.steps; ++t) {
            driven = neuron.synaptic_decay * driven + load<V>(job.current.at(t, i), end - i);
            const F u = neuron.decay * v + driven;
            const F spike = decide<V>(u, at);
            store<V>(job.spikes.at(t, i), spike, end - i);
            if (job.membrane.data != nullptr) store<V>(job.membrane.at(t, i), u, end - i);
            v = reset.after(u, spike, at.threshold);
        }
    }
}

// What the end of a window answers to, and what of it answers; train/slopes.py explains.
enum Source { OFFSET, BEGUN_V, BEGUN_I, DECAY, SYNAPTIC_DECAY, SOURCES };
enum Part { RATE, END_V, END_I, PARTS };
using Slopes = std::array<std::array<float*, PARTS>, SOURCES>;  // null where nobody asks

struct GeneralStream {
    Neuron neuron;
    std::int64_t steps;  // of one window
    Rows<const float> current;
    Rows<float> spikes;
    Rows<float> rates;
    std::vector<Slopes> slopes;  // of each window
};

template <class V>
struct Moved {
    typename V::F v, i, fires;
};

// Spikes, and of every window its rate and its slopes. The membrane's answer to a source is
// du = decay dv + di (+ v for the decay), di = synaptic_decay di (+ 1 for the offset, + i for the
// synaptic decay); dr = mean of h du; dv = through du.
template <class V, class Reset, int SURROGATE>
INLINE void run(const GeneralStream& job, std::int64_t begin, std::int64_t end) {
    using F = typename V::F;
    const Neuron neuron = job.neuron;
    const typename Reset::template On<V> reset(neuron);
    const Derivative<V, SURROGATE> surrogate(neuron.width);
    const float steps = static_cast<float>(job.steps);
    for (std::int64_t i = begin; i < end; i += V::lanes) {
        const Level<F> at = level_at<V>(neuron, i, end - i);
        F v = {}, driven = {};
        for (std::size_t window = 0; window < job.slopes.size(); ++window) {
            const Slopes& slopes = job.slopes[window];
            Moved<V> moved[SOURCES] = {};
            moved[BEGUN_V].v = F{} + 1.0f;
            moved[BEGUN_I].i = F{} + 1.0f;
            F count = {};
            for (std::int64_t n = 0; n < job.steps; ++n) {
                const std::int64_t t = static_cast<std::int64_t>(window) * job.steps + n;
                const F v_before = v, i_before = driven;
                driven = neuron.synaptic_decay * driven + load<V>(job.current.at(t, i), end - i);
                const F u = neuron.decay * v + driven;
                const F spike = decide<V>(u, at);
                const F h = surrogate(u - at.threshold);
                const F rho = reset.through(u, spike, h, at.threshold);
                store<V>(job.spikes.at(t, i), spike, end - i);
                for (int source = 0; source < SOURCES; ++source) {
                    if (slopes[source][RATE] == nullptr) continue;
                    Moved<V>& last = moved[source];
                    F di = neuron.synaptic_decay * last.i;
                    if (source == OFFSET) di = di + 1.0f;
                    if (source == SYNAPTIC_DECAY) di = di + i_before;
                    F du = neuron.decay * last.v + di;
                    if (source == DECAY) du = du + v_before;
                    last = {rho * du, di, last.fires + h * du};
                }
                count = count + spike;
                v = reset.after(u, spike, at.threshold);
            }
            store<V>(job.rates.at(static_cast<std::int64_t>(window), i), count / steps, end - i);
            for (int source = 0; source < SOURCES; ++source) {
                const Moved<V>& last = moved[source];
                const F parts[PARTS] = {last.fires / steps, last.v, last.i};
                for (int part = 0; part < PARTS; ++part)
                    if (slopes[source][part] != nullptr)
                        store<V>(slopes[source][part] + i, parts[part], end - i);
            }
        }
    }
}

struct GeneralBackward {
    Neuron neuron;
    std::int64_t steps;
    Rows<const float> gradient;
    Rows<const float> membrane;
    Rows<float> current;
    float* decay;           // gradient with respect to the decay, element by element; or null
    float* synaptic_decay;  // the same
};

// du_t = h(u_t - threshold) ds_t + decay * through_t * du_{t+1}; di_t = du_t + synaptic_decay *
// di_{t+1} = dc_t; to the decay sum_t du_t v_{t-1}, to the synaptic one sum_t di_t i_{t-1}. What
// was not kept is found again: v_t by the reset of u_t, i_t = u_t - decay * v_{t-1}.
template <class V, class Reset, int SURROGATE>
INLINE void run(const GeneralBackward& job, std::int64_t begin, std::int64_t end) {
    using F = typename V::F;
    const Neuron neuron = job.neuron;
    const typename Reset::template On<V> reset(neuron);
    const Derivative<V, SURROGATE> surrogate(neuron.width);
    const float carried = neuron.cut ? 0.0f : neuron.decay;
    const float synaptic_carried = neuron.cut ? 0.0f : neuron.synaptic_decay;
    for (std::int64_t i = begin; i < end; i += V::lanes) {
        const Level<F> at = level_at<V>(neuron, i, end - i);
        F du = {}, di = {}, to_decay = {}, to_synaptic = {};
        F u = load<V>(job.membrane.at(job.steps - 1, i), end - i);
        for (std::int64_t t = job.steps - 1; t >= 0; --t) {
            const F u_before = t > 0 ? load<V>(job.membrane.at(t - 1, i), end - i) : F{};
            const F u_long_before = t > 1 ? load<V>(job.membrane.at(t - 2, i), end - i) : F{};
            const F v_before = reset.after(u_before, decide<V>(u_before, at), at.threshold);
            const F v_long_before =
                reset.after(u_long_before, decide<V>(u_long_before, at), at.threshold);
            const F spike = decide<V>(u, at);
            const F h = surrogate(u - at.threshold);
            const F rho = reset.through(u, spike, h, at.threshold);
            du = h * load<V>(job.gradient.at(t, i), end - i) + carried * rho * du;
            di = du + synaptic_carried * di;
            store<V>(job.current.at(t, i), di, end - i);
            // Before the first step both states are 0; a u of 0 never fires, so they are here too.
            to_decay = to_decay + du * v_before;
            to_synaptic = to_synaptic + di * (u_before - neuron.decay * v_long_before);
            u = u_before;
        }
        if (job.decay != nullptr) store<V>(job.decay + i, to_decay, end - i);
        if (job.synaptic_decay != nullptr)
            store<V>(job.synaptic_decay + i, to_synaptic, end - i);
    }
}

}  // namespace

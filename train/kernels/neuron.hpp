// A population of LIF, IF or CubaLIF neurons: its numbers, where its rows lie, and its reset.

#pragma once

#include <cstdint>

#include "surrogates.hpp"
#include "vector.hpp"

namespace {

struct Neuron {
    float decay;
    float synaptic_decay;  // 0: the current of a step is its own, as in LIF and IF
    bool cuba;
    float threshold;
    const float* thresholds;  // of every element; null where all have `threshold`
    bool at_threshold;
    bool subtract;
    bool detach;
    bool cut;  // no gradient from a step to the one before
    float width;
};

// Rows of memory, (T, N): row t starts at data + t * step, its N floats lie together. A step of 0
// shows the same row at every t.
template <class Float>
struct Rows {
    Float* data;
    std::int64_t step;
    Float* at(std::int64_t t, std::int64_t i) const { return data + t * step + i; }
};

template <class Value>  // a float, or a vector of them
struct Level {
    Value threshold;
    Value fires_at;  // the smallest float that fires
};

// Spikes as numbers; u > threshold is u >= the next float above it.
template <class V, class Value>
INLINE typename V::F decide(const typename V::F& u, const Level<Value>& level) {
    return keep<V>(u >= level.fires_at, typename V::F{} + 1.0f);
}

// The reset of a step: the membrane after it, and that with respect to the membrane before it.
template <bool SUBTRACT, bool DETACH>
struct Fixed {
    template <class V>
    struct On {
        using F = typename V::F;
        INLINE explicit On(const Neuron&) {}
        INLINE F after(const F& u, const F& spike, float threshold) const {
            return SUBTRACT ? u - threshold * spike : u - u * spike;
        }
        INLINE F through(const F& u, const F& spike, const F& h, float threshold) const {
            if (SUBTRACT) return DETACH ? F{} + 1.0f : 1.0f - threshold * h;
            return DETACH ? 1.0f - spike : 1.0f - spike - u * h;
        }
    };
};

// The same, told at run time: where more than this is done in a step it costs little.
struct Told {
    template <class V>
    struct On {
        using F = typename V::F;
        using I = typename V::I;
        I subtract, attached;
        INLINE explicit On(const Neuron& neuron)
            : subtract(I{} - (neuron.subtract ? 1 : 0)), attached(I{} - (neuron.detach ? 0 : 1)) {}
        INLINE F taken(const F& u, const F& threshold) const {
            return (F)((subtract & (I)threshold) | (~subtract & (I)u));
        }
        INLINE F after(const F& u, const F& spike, const F& threshold) const {
            return u - taken(u, threshold) * spike;
        }
        INLINE F through(const F& u, const F& spike, const F& h, const F& threshold) const {
            return 1.0f - keep<V>(~subtract, spike) - keep<V>(attached, taken(u, threshold) * h);
        }
    };
};

}  // namespace

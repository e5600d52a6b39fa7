# Proof: Frama-C's Eva on every device model, and exhaustive comparisons. docs/proof.md says what that shows.
#   make prove                   everything, one line each
#   make prove-eva-vpit          one of them

PROOF_MODELS := vpic vioapic vlapic vpit hpet rtc pmtimer uart
PROOFS := $(patsubst %,prove-eva-%,$(PROOF_MODELS) wide wide-mul) prove-vpic prove-vlapic prove-bits

# How hard Eva has to look (see its manual on -eva-precision and slevel), and what the harness needs to know.
EVA_precision := 0
EVA_precision_uart := 3
EVA_precision_vlapic := 1
EVA_vioapic := -eva-auto-loop-unroll 64
EVA_hpet := -eva-slevel-function find_register:100
EVA_rtc := -eva-slevel-function run_periodic:50,rtc_deadline:50,rate_shift:20
EVA_DEFS_vioapic := -DASSUME=\"assume_vioapic.h\"
EVA_DEFS_hpet := -DUNIT=8u -DUNITS=68u

eva_precision = $(or $(EVA_precision_$(1)),$(EVA_precision))
eva_includes := -Iinclude -Iarch/x86/hvm -Itests/fuzz -Itests/proof

.PHONY: prove $(PROOFS)
prove: $(PROOFS)

# From the states that check() accepts: its paths are followed apart, so that what it has compared stays known.
$(patsubst %,prove-eva-%,$(PROOF_MODELS)): prove-eva-%:
	@tests/proof/prove $* -cpp-extra-args='$(eva_includes) -DMODEL=$* -DHEADER=\"$*/$*.h\" $(EVA_DEFS_$*)' \
		tests/proof/eva.c tests/fuzz/model_$*.c $(wildcard arch/x86/hvm/$*/*.c) -eva -eva-precision $(call eva_precision,$*) \
		-eva-split-return full -eva-slevel-function $*_check:1000,model_check:1000,assumption:100,main:100 $(EVA_$*)

prove-eva-wide:
	@tests/proof/prove wide -cpp-extra-args='$(eva_includes)' tests/proof/eva_wide.c -eva -eva-precision 3
prove-eva-wide-mul:
	@tests/proof/prove wide-mul -cpp-extra-args='$(eva_includes) -DONLY_MUL' tests/proof/eva_wide.c -eva -warn-unsigned-overflow

# Every state against a naive reference; the first two are unit tests.
prove-vpic: $(B)/unit/test_vpic
	@$< >$(B)/proof-vpic.log 2>&1 && echo "ok exhaustive-vpic: the resolver equals the reference in every state" || \
		{ echo "not ok exhaustive-vpic: see $(B)/proof-vpic.log"; exit 1; }
prove-vlapic: $(B)/unit/test_vlapic_priority
	@$< >$(B)/proof-vlapic.log 2>&1 && echo "ok exhaustive-vlapic: priorities equal the reference" || \
		{ echo "not ok exhaustive-vlapic: see $(B)/proof-vlapic.log"; exit 1; }
$(B)/proof/exhaustive_bits: tests/proof/exhaustive_bits.c arch/x86/hvm/vlapic/bitmap.h
	@mkdir -p $(@D)
	$(HOSTCC) -std=gnu11 -O2 -Wall -Wextra -Werror -iquote include -Iarch/x86/hvm $< -o $@
prove-bits: $(B)/proof/exhaustive_bits
	@result=$$($<) && echo "ok exhaustive-bits: $$result" || { echo "not ok exhaustive-bits: $$result"; exit 1; }

# Proof: Frama-C's Eva and WP, the inductive step, and all states where they are few. docs/proof.md says what that shows.
#   make prove                   everything, one line each
#   make prove-eva-vpit          one of them; prove-inductive-vpit STATES=N steps from N arbitrary states

PROOF_MODELS := vpic vioapic vlapic vpit hpet rtc pmtimer uart
EXHAUSTIVE := vioapic vlapic vpit rtc pmtimer
PROOFS := $(patsubst %,prove-eva-%,$(PROOF_MODELS) wide wide-mul) prove-vpic prove-vlapic prove-bits prove-posting \
	$(patsubst %,prove-wp-%,line vlapic) $(patsubst %,prove-inductive-%,$(PROOF_MODELS)) $(patsubst %,prove-all-%,$(EXHAUSTIVE))

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

# Contracts, function by function.
WP_line := line_set,line_pulse
WP_vlapic := divide_shift,add_sat,timer_mode,timer_fire,vlapic_timer_expire,vlapic_advance,vlapic_timer_start,
WP_vlapic := $(WP_vlapic)vlapic_timer_lvt,arm_deadline,vlapic_write_deadline,vlapic_write_adjust
prove-wp-line prove-wp-vlapic: prove-wp-%:
	@tests/proof/wp $* $(WP_$*)

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

# The inductive step from arbitrary states (STATES of them), and from all of them where few enough are different.
STATES := 1000000
SOME_VPIT := 8
PROOF_CFLAGS := -std=gnu11 -O2 -g -fsanitize=undefined -fno-sanitize-recover=all -Wall -Wextra -Werror -Wno-unused-parameter \
	-iquote include -Iarch/x86/hvm -Itests/fuzz
$(B)/proof/obj/%.o: %.c
	@mkdir -p $(@D)
	$(HOSTCC) $(PROOF_CFLAGS) -MMD -MP -c $< -o $@
proof_objects = $(patsubst %.c,$(B)/proof/obj/%.o,$(1))
$(foreach m,$(PROOF_MODELS),$(eval $(B)/proof/inductive_$m: $(call proof_objects,tests/proof/inductive.c $(call model_src,$m))))
$(foreach m,$(EXHAUSTIVE),$(eval $(B)/proof/all_$m: $(call proof_objects,tests/proof/all_$m.c $(call model_src,$m))))
# Two rules: one pattern rule of two targets would be one command for both.
link_proof = $(HOSTCC) $(PROOF_CFLAGS) $^ -o $@
$(B)/proof/inductive_%:
	$(link_proof)
$(B)/proof/all_%:
	$(link_proof)

prove_by = @if result=$$($< $(2) 2>&1); then echo "ok $(1): $$result"; else \
	echo "not ok $(1): $$(echo "$$result" | grep -aoE 'PROPERTY: .*|runtime error: .*' | head -1); again with $< $(2)"; exit 1; fi
$(patsubst %,prove-inductive-%,$(PROOF_MODELS)): prove-inductive-%: $(B)/proof/inductive_%
	$(call prove_by,inductive-$*,$(STATES))
$(patsubst %,prove-all-%,$(EXHAUSTIVE)): prove-all-%: $(B)/proof/all_%
	$(call prove_by,all-$*,$(if $(filter vpit,$*),$(SOME_VPIT)))

# The posting protocol in a model checker, and its mutants.
prove-posting:
	@tests/proof/posting

/*
 * The posting and kicking protocol: who posts to a vCPU, its pCPU that runs it, halts and waits, step by step as the C code
 * does it on x86. docs/proof.md says what is shown. A comment of the form FILE:FUNCTION "LINE" is the code that a step
 * stands for; tests/proof/posting checks that it is there, and that no line of these functions that touches what pCPUs share
 * is missing here.
 *
 * Each locked operation, and each load or store of shared memory, is a step of its own; `atomic` only joins to it what the
 * pCPU alone can see, and ghosts. TSO: a plain store of the vCPU's pCPU goes through `stores` and reaches memory at any later
 * time, in order; locked operations and XCHG wait until it is empty. All that others write is locked.
 *
 * What is left out is put as that which looks least: no timer ends a halt, no time slice a guest that is alone, and a guest
 * that computes leaves only by an interrupt. A request's answer always rings.
 */

/* Each mutant is wrong, and must be found so. 0 is the protocol. */
#define ON_CLEARED_LATE       1  /* ON is cleared after work and PIR were taken */
#define PUBLISHED_LATE        2  /* IN_GUEST is published after the last drain */
#define IN_GUEST_UNFENCED     3  /* and by a plain store before it */
#define IDLE_UNFENCED         4
#define IDLE_UNCHECKED        5  /* ON is not looked at again after IDLE */
#define KICK_DECIDED_EARLY    6  /* the state is read before ON is set */
#define ON_NOT_EXCHANGED      7  /* ON is loaded, then stored */
#define BIT_AFTER_ON          8  /* PIR is set after ON */
#define IDLE_ONLY_KICKED      9  /* an idle vCPU's pCPU gets an IPI, but no bit in its wake mask */
#define WAKE_AFTER_IPI       10  /* the bit is set after the IPI was sent */
#define PIR_NOT_EXCHANGED    11  /* PIR is loaded, then zeroed */
#define PIR_LEFT             12  /* PIR is not zeroed */
#define TMR_AFTER_PIR        13
#define TMR_LEFT             14  /* an edge does not clear TMR */
#define HALT_WITHOUT_SHADOW  15  /* interrupts are on before HLT, so that one can come between */
#define HALT_UNCHECKED       16  /* the wake mask is not looked at before HLT */
#define WAKE_NOT_EXCHANGED   17  /* the wake mask is loaded, then zeroed */
#define WAKE_OVERLOOKED      18  /* a wake-up on the pCPU itself sets `resched`, which the next choice of a vCPU clears */
#define INJECTION_UNCHECKED  19  /* ON is not looked at again after an injection */
#define RESET_CLEARS_ON_LAST 20
#define RESET_CLEARS_TMR     21
#define INIT_WITHOUT_ON      22  /* an INIT that is put off leaves ON clear */
#define KICKED_ALWAYS        23  /* whether ON was set or not */
#define OFF_NOT_WOKEN        24  /* a vCPU that waits for SIPI is not woken */
#define PLACE_READ_EARLY     25  /* where the vCPU lives is read before ON is set */
#define LOOK_BEFORE_ARRIVAL  26  /* its new pCPU is asked to look before it finds the vCPU there */
#define ARRIVAL_UNTOLD       27  /* or is not asked */
#define MOVED_RUNNABLE       28  /* the vCPU stays RUNNABLE on its way, so that the new pCPU does not take it over */
#define BREATH_FORGETS       29  /* an IPI that was let in amid an exit's handling is not sent again */
#define QUIET_FORGETS        30  /* nor is one that was let in while the entry waited undisturbed */
#ifndef MUTANT
#define MUTANT 0
#endif

/* pCPUs 0 and up: the vCPU lives on 0 at first, and moves between these; the others, which only post, are 2 and up. */
#ifndef MOVES
#define MOVES 0
#endif
#if MOVES
#define OWNERS 2
#define READ_PLACE at = place;
#else
#define OWNERS 1
#define READ_PLACE
#endif

/* Vectors are bits of one word of PIR and TMR: one of edges, whose TMR bit is left over from levels, and one of levels. */
#define EDGE  1
#define LEVEL 2
/* Bits of work; an NMI pends beside the IRR. */
#define NMI  1
#define INIT 2
#define SIPI 4
#define PENDING_NMI 4

mtype = { OFF, RUNNABLE, IN_GUEST, IDLE, WAIT_IOREQ, STOPPED, STARTING, ARRIVING }; /* enum vcpu_state */
mtype = { NONE, READY, RESPONSE };                                        /* the shared request page */

/* ---- Memory ---- */
byte pir, tmr = EDGE, work;
bool on;
mtype state = RUNNABLE;
chan stores[OWNERS] = [2] of { mtype }; /* a pCPU's plain stores of `state` on their way */
byte place;                     /* the pCPU where the vCPU lives */
bool here[OWNERS];              /* that pCPU finds it among its own */
bool wake[OWNERS];              /* the vCPU's bit in a pCPU's mask */
bool ipi[OWNERS];               /* VECTOR_KICK pends at its local APIC */
bool resched[OWNERS];           /* a pCPU's own, as the next two */
bool runnable[OWNERS], io_waiting[OWNERS];
bool action;
mtype request = NONE;

/* ---- The vCPU's own: touched by the pCPU alone that has it ---- */
mtype own_state = RUNNABLE;     /* as that pCPU itself reads it */
byte irr;                       /* vectors and the NMI on their way in */
bool halted, wait_sipi;
bool waiting;                   /* io.waiting */
byte own_posts = OWN_POSTS;
byte moves_left = MOVES;

/* ---- Ghosts ---- */
byte unseen, unseen_work; /* posted, and neither taken nor discarded */
byte kicks_left = 1;      /* every drain is good for one, and so is the start; more than there can be posts do not count */
bool stopped;

/* When a pCPU's locked operation can be done. */
#define LOCKED(cpu) (cpu >= OWNERS || empty(stores[cpu]))

/* ---- Who posts: any pCPU; `view` is the vCPU's state as this one reads it ---- */

/* hvm.c:hvm_kick */
#define KICK(cpu, at) ipi[at] = ipi[at] || cpu != at

/* post.c:vcpu_look_at */
inline look_there(cpu, at)
{
#if MUTANT == WAKE_AFTER_IPI
    KICK(cpu, at);
#endif
#if MUTANT != IDLE_ONLY_KICKED
    atomic { LOCKED(cpu) -> wake[at] = true } /* "__atomic_fetch_or(&hvm_pcpus[at.cpu]->wake, 1ull << at.local, __ATOMIC_SEQ_CST);" */
#endif
#if MUTANT == WAKE_OVERLOOKED
    if
    :: cpu == at -> resched[at] = true
    :: else
    fi;
#endif
#if MUTANT != WAKE_AFTER_IPI
    KICK(cpu, at) /* "hvm_kick(at.cpu);" */
#endif
}

/* post.c:vcpu_look "vcpu_look_at(vcpu_place(v));" */
inline look(cpu)
{
    READ_PLACE
    look_there(cpu, at)
}

#ifndef SHARED
#define SHARED (MOVES || RIVAL)
#endif

/* post.c:kick. Whether others wait for the pCPU too is left open. */
inline kick(cpu, view)
{
#if MUTANT != KICK_DECIDED_EARLY
    seen = view; /* "uint32_t state = __atomic_load_n(&v->state, __ATOMIC_SEQ_CST);" */
#endif
#if MUTANT != PLACE_READ_EARLY
    READ_PLACE /* "unsigned cpu = vcpu_place(v).cpu;" */
#endif
    if
#if MUTANT == OFF_NOT_WOKEN
    :: seen == IDLE -> count_kick(); look_or_early(cpu)
#else
    :: seen == IDLE || seen == OFF -> count_kick(); look_or_early(cpu) /* "vcpu_look(v);" */
#endif
    :: seen == RUNNABLE && SHARED -> count_kick(); look_or_early(cpu)
    :: seen == IN_GUEST -> count_kick(); KICK(cpu, at) /* "hvm_kick(cpu);" */
#if MUTANT == OFF_NOT_WOKEN
    :: seen != IDLE && seen != IN_GUEST
#else
    :: seen != IDLE && seen != IN_GUEST && seen != OFF
#endif
    fi
}

inline look_or_early(cpu)
{
#if MUTANT == PLACE_READ_EARLY
    look_there(cpu, at)
#else
    look(cpu)
#endif
}

inline count_kick()
{
    d_step { assert(kicks_left > 0); kicks_left-- }
}

#define ALL_POSTS (SENDERS * POSTS + OWN_POSTS)
#define DRAINED kicks_left = (kicks_left < ALL_POSTS -> kicks_left + 1 : kicks_left)

/* post.c:ring */
inline ring(cpu, view)
{
#if MUTANT == KICK_DECIDED_EARLY
    seen = view;
#endif
#if MUTANT == PLACE_READ_EARLY
    READ_PLACE
#endif
#if MUTANT == ON_NOT_EXCHANGED
    was_on = on;
    on = true;
#else
    atomic { LOCKED(cpu) -> was_on = on; on = true } /* "if (!__atomic_exchange_n(&v->posted.on, 1, __ATOMIC_SEQ_CST))" */
#endif
    if
#if MUTANT == KICKED_ALWAYS
    :: true -> kick(cpu, view)
#else
    :: !was_on -> kick(cpu, view)
    :: else
#endif
    fi
}

/* post.c:vcpu_post, but for who has posted, which is only counted: "__atomic_store_n(&p->source[vector], (uint8_t)source, __ATOMIC_RELAXED);" */
inline set_tmr(cpu, vector)
{
    if
    :: vector == LEVEL -> atomic { LOCKED(cpu) -> tmr = tmr | vector } /* "__atomic_fetch_or(tmr, bit, __ATOMIC_RELAXED);" */
    :: vector == EDGE ->
#if MUTANT != TMR_LEFT
        if
        :: tmr & vector -> atomic { LOCKED(cpu) -> tmr = tmr & ~vector } /* "__atomic_fetch_and(tmr, ~bit, __ATOMIC_RELAXED);" */
        :: else /* "else if (__atomic_load_n(tmr, __ATOMIC_RELAXED) & bit)" */
        fi
#endif
    fi
}

inline set_pir(cpu, vector)
{
    atomic { LOCKED(cpu) -> pir = pir | vector; unseen = unseen | vector } /* "__atomic_fetch_or(&p->pir[vector >> 6], bit, __ATOMIC_RELEASE);" */
}

inline post(cpu, view, vector)
{
#if MUTANT == TMR_AFTER_PIR
    set_pir(cpu, vector);
    set_tmr(cpu, vector);
    ring(cpu, view)
#elif MUTANT == BIT_AFTER_ON
    set_tmr(cpu, vector);
    ring(cpu, view);
    set_pir(cpu, vector)
#else
    set_tmr(cpu, vector);
    set_pir(cpu, vector);
    ring(cpu, view)
#endif
}

/* post.c:vcpu_post_work */
inline post_work(cpu, view, bits)
{
    atomic { LOCKED(cpu) -> work = work | bits; unseen_work = unseen_work | bits } /* "__atomic_fetch_or(&v->posted.work, work, __ATOMIC_RELEASE);" */
    ring(cpu, view)
}

proctype sender(byte cpu)
{
    byte n, at;
    bool was_on;
    mtype seen;

    do
    :: n < POSTS ->
        n++;
        if
        :: true -> post(cpu, state, EDGE)
        :: true -> post(cpu, state, LEVEL)
#ifdef WORKS
        :: true -> post_work(cpu, state, NMI)
        :: true -> post_work(cpu, state, INIT)
        :: true -> post_work(cpu, state, SIPI)
#endif
        fi
    :: else -> break
    od
}

/* A command pauses the domain, resets it while it stands still, and lets it go on; posts do not wait for that. */
proctype control(byte cpu)
{
    byte at;

    action = true;
    look(cpu);
    stopped; /* post.c:vcpu_discard_posts */
#if MUTANT != RESET_CLEARS_ON_LAST
    atomic { on = false; DRAINED };        /* "__atomic_exchange_n(&p->on, 0, __ATOMIC_SEQ_CST);" */
#endif
#if MUTANT == RESET_CLEARS_TMR
    tmr = 0;
#endif
    atomic { work = 0; unseen_work = 0 };   /* "__atomic_store_n(&p->work, 0, __ATOMIC_RELAXED);" */
    atomic { pir = 0; unseen = 0 };         /* "__atomic_store_n(&p->pir[w], 0, __ATOMIC_RELAXED);" */
#if MUTANT == RESET_CLEARS_ON_LAST
    atomic { on = false; DRAINED };
#endif
    action = false;                         /* domain.c:start "__atomic_store_n(&d->action, ACTION_NONE, __ATOMIC_SEQ_CST);" */
    state = STARTING;                       /* "__atomic_store_n(&d->vcpu[i]->state, VCPU_STARTING, __ATOMIC_SEQ_CST);" */
    look(cpu)                               /* "vcpu_look(d->vcpu[i]);" */
}

/* ---- The vCPU's pCPU ---- */

inline plain_store(to)
{
    atomic { nfull(stores[me]) -> stores[me]!to; own_state = to }
}

inline fenced_store(to)
{
    atomic { empty(stores[me]) -> state = to; own_state = to }
}

/* sched.c:sched_wake */
inline sched_wake()
{
    plain_store(RUNNABLE); /* "v->state = VCPU_RUNNABLE;" */
    runnable[me] = true;
    io_waiting[me] = false
}

/* sched.c:sched_block */
inline block(to)
{
    runnable[me] = false;
    fenced_store(to) /* "__atomic_store_n(&v->state, state, __ATOMIC_SEQ_CST);" */
}

inline block_or_wake(to)
{
#if MUTANT == IDLE_UNFENCED
    runnable[me] = false;
    plain_store(to);
#else
    block(to);
#endif
#if MUTANT != IDLE_UNCHECKED
    if /* "if ((state == VCPU_IDLE || state == VCPU_OFF) && __atomic_load_n(&v->posted.on, __ATOMIC_SEQ_CST))" */
    :: on -> sched_wake()
    :: else
    fi
#endif
}

/* hvm.c:hand_over, sched.c:sched_move, sched.c:settle: a vCPU that can run and does not goes to another pCPU. That this one's place
 * is free for others ("__atomic_fetch_and(&p->taken, ~bit, __ATOMIC_SEQ_CST);") is left out. */
inline hand_over(to)
{
    moves_left--;
#if MUTANT != MOVED_RUNNABLE
    plain_store(ARRIVING); /* "v->state = VCPU_ARRIVING;" */
#endif
    runnable[me] = false;  /* sched.c:sched_remove */
    atomic { empty(stores[me]) -> wake[me] = false } /* "__atomic_fetch_and(&p->wake, ~bit, __ATOMIC_SEQ_CST);" */
    atomic { empty(stores[me]) -> here[me] = false } /* "__atomic_store_n(&p->local[v->place.local], NULL, __ATOMIC_SEQ_CST);" */
#if MUTANT == LOOK_BEFORE_ARRIVAL
    look_there(me, to);
#endif
    place = to;      /* "__atomic_store(&v->place, &place, __ATOMIC_SEQ_CST);" */
    here[to] = true; /* "__atomic_store_n(&hvm_pcpus[at.cpu]->local[at.local], v, __ATOMIC_SEQ_CST);" */
#if MUTANT != LOOK_BEFORE_ARRIVAL && MUTANT != ARRIVAL_UNTOLD
    look_there(me, to) /* "vcpu_look_at(to);" */
#endif
}

/* Takes everything, and nothing that nobody has asked for. */
inline take(from, asked)
{
    bits = from;
    assert(bits == asked);
    asked = 0
}

inline clear_on()
{
    atomic { empty(stores[me]) -> on = false; DRAINED } /* post.c:vcpu_drain "__atomic_exchange_n(&p->on, 0, __ATOMIC_SEQ_CST);" */
}

/* post.c:put_off */
inline put_off()
{
    atomic { /* "__atomic_fetch_or(&v->posted.work, later, __ATOMIC_RELAXED);" */
        empty(stores[me]);
        if
        :: bits & INIT -> work = work | bits; unseen_work = unseen_work | bits; bits = 0
        :: else -> work = work | (bits & SIPI); unseen_work = unseen_work | (bits & SIPI); bits = bits & NMI
        fi
    }
#if MUTANT != INIT_WITHOUT_ON
    on = true; /* "__atomic_store_n(&v->posted.on, 1, __ATOMIC_SEQ_CST);" */
#endif
    plain_store(RUNNABLE); /* "v->state = VCPU_RUNNABLE;" */
    resched[me] = true; /* "this_hvm()->resched = true;" */
}

/* post.c:do_work */
inline do_work()
{
    if
    :: (bits & (INIT | SIPI)) && own_state == IN_GUEST -> put_off()
    :: else
    fi;
    d_step {
        if
        :: bits & INIT -> irr = 0; halted = false; wait_sipi = true
        :: else
        fi;
        if
        :: bits & NMI -> irr = irr | PENDING_NMI
        :: else
        fi;
        if
        :: bits & SIPI -> wait_sipi = false
        :: else
        fi;
        bits = 0
    }
}

/* post.c:vcpu_drain */
inline take_pir()
{
    if /* "uint64_t bits = __atomic_load_n(&p->pir[w], __ATOMIC_RELAXED);" */
    :: pir != 0 ->
#if MUTANT == PIR_NOT_EXCHANGED
        atomic { take(pir, unseen) };
        pir = 0;
#elif MUTANT == PIR_LEFT
        atomic { take(pir, unseen) };
#else
        atomic { empty(stores[me]) -> take(pir, unseen); pir = 0 } /* "bits = __atomic_exchange_n(&p->pir[w], 0, __ATOMIC_ACQUIRE);" */
#endif
        d_step { /* "bool level = __atomic_load_n(&p->tmr[w], __ATOMIC_RELAXED) >> bit & 1;" */
            assert(!(bits & EDGE & tmr) && !(bits & LEVEL & ~tmr));
            irr = irr | bits;
            bits = 0
        }
    :: else
    fi
}

inline drain()
{
    if /* "if (!__atomic_load_n(&p->on, __ATOMIC_RELAXED))" */
    :: on ->
#if MUTANT != ON_CLEARED_LATE
        clear_on();
#endif
#ifdef WORKS
        if /* "work = __atomic_load_n(&p->work, __ATOMIC_RELAXED) ? __atomic_exchange_n(&p->work, 0, __ATOMIC_ACQUIRE) : 0;" */
        :: work != 0 -> atomic { empty(stores[me]) -> take(work, unseen_work); work = 0 } do_work()
        :: else
        fi;
#endif
        take_pir();
#if MUTANT == ON_CLEARED_LATE
        clear_on()
#endif
    :: else
    fi
}

/* What this pCPU itself may post here, so often. */
inline may_post()
{
#if OWN_POSTS
    if
    :: own_posts > 0 -> own_posts--; post(me, own_state, EDGE)
    :: true
    fi
#else
    skip
#endif
}

proctype owner(byte me; bool rival) /* rival: another vCPU on this pCPU wants to run */
{
    byte bits, at;
    bool was_on, taken, leaves, quiet;
    mtype seen;

round: /* hvm.c:round */
    ipi[me] = false; /* "sti_nop_cli();" */
    /* hvm.c:take_wakes */
#if MUTANT == WAKE_NOT_EXCHANGED
    taken = wake[me];
    wake[me] = false;
#else
    atomic { empty(stores[me]) -> taken = wake[me]; wake[me] = false } /* "uint64_t wake = __atomic_exchange_n(&p->wake, 0, __ATOMIC_SEQ_CST);" */
#endif
    if
    :: taken && here[me] -> taken = false; goto look_at
    :: else -> taken = false; goto poll
    fi;

look_at: /* hvm.c:look_at */
    if
    :: action && own_state != STOPPED -> /* hvm.c:stop, hvm.c:take_off */
        if
        :: waiting && request != RESPONSE -> io_waiting[me] = true; block(WAIT_IOREQ)
        :: else -> io_waiting[me] = false; block(STOPPED); stopped = true
        fi
    :: !action && state == STARTING -> /* hvm.c:start */
        sched_wake();
        if
        :: waiting -> io_waiting[me] = true; block(WAIT_IOREQ)
        :: else
        fi
    :: !action && own_state == ARRIVING -> sched_wake() /* hvm.c:arrive */
    :: !action && (own_state == IDLE || own_state == OFF) -> sched_wake()
    :: else
    fi;

poll: /* hvm.c:poll_requests */
    if
    :: io_waiting[me] && request == RESPONSE ->
        if
        :: action -> goto look_at
        :: else -> sched_wake()
        fi
    :: else
    fi;
    may_post(); /* standalone_poll(), domain_vcpu_stopped() */

    resched[me] = false; /* sched.c:sched_pick "p->resched = false;" */
    if
    :: runnable[me] -> goto run_vcpu
#if MOVES
    :: runnable[me] && moves_left > 0 -> hand_over(1 - me); goto round
#endif
    :: rival -> goto run_rival
    :: !runnable[me] && !rival -> goto idle
    fi;

idle: /* hvm.c:idle */
#if MUTANT != HALT_UNCHECKED
    if
    :: wake[me] -> goto round /* hvm.c:has_work "return p->runnable || p->timer_fired || p->attention || __atomic_load_n(&p->wake, __ATOMIC_SEQ_CST);" */
    :: else
    fi;
#endif
#if MUTANT == HALT_WITHOUT_SHADOW
    ipi[me] = false;
#endif
end_halt:
    ipi[me] -> goto round; /* hvm.c:idle "sti_hlt_cli();" */

run_rival: /* the same steps as below, of a vCPU to which nobody posts */
#if MUTANT != WAKE_OVERLOOKED
    if
    :: wake[me] -> goto round
    :: else
    fi;
#endif
    if
    :: resched[me] -> goto round
    :: !resched[me] -> may_post(); goto run_rival
    :: !resched[me] -> rival = false; goto round /* halts for good */
    :: !resched[me]
    fi;
end_rival:
    ipi[me] || runnable[me] -> goto round; /* an IPI, or the end of its time slice */

run_vcpu: /* hvm.c:round */
    if
    :: action -> goto look_at
    :: else
    fi;
    /* vcpu.c:vcpu_run */
    if
    :: waiting && request == RESPONSE -> request = NONE; waiting = false
    :: waiting && request != RESPONSE -> io_waiting[me] = true; block(WAIT_IOREQ); goto round
    :: !waiting
    fi;
    drain();
    if
    :: halted && irr == 0 -> block_or_wake(IDLE); goto round
    :: else -> halted = false
    fi;
    if
    :: wait_sipi -> block_or_wake(OFF); goto round
    :: else
    fi;
#if MUTANT == IN_GUEST_UNFENCED
    plain_store(IN_GUEST);
#elif MUTANT != PUBLISHED_LATE
    fenced_store(IN_GUEST); /* svm.c:svm_run "__atomic_store_n(&v->state, VCPU_IN_GUEST, __ATOMIC_SEQ_CST);" */
#endif

prepare: /* vcpu.c:vcpu_prepare "if (hvm_called(p) && !p->quiet_until)" */
    if
    :: quiet = true /* hvm.c:hvm_be_quiet: a timer of this domain's is near */
    :: true
    fi;
#if MUTANT != WAKE_OVERLOOKED
    if /* "return p->timer_fired || p->attention || p->resched || p->wake;" */
    :: wake[me] && !quiet -> goto leave
    :: else
    fi;
#endif
    if
    :: resched[me] && !quiet -> goto leave
    :: else
    fi;
    drain();
#if MUTANT == PUBLISHED_LATE
    fenced_store(IN_GUEST);
#endif
    if /* "return v->state == VCPU_IN_GUEST && !v->domain->action;" */
    :: action -> goto leave
    :: else
    fi;
    if
    :: own_state != IN_GUEST -> goto leave
    :: else
    fi;
    /* inject.c:inject_next */
    if
    :: irr == 0
    :: irr & PENDING_NMI -> irr = irr & ~PENDING_NMI
    :: irr != 0 && !(irr & PENDING_NMI) ->
        irr = irr & (irr - 1);
        may_post(); /* chipset_acknowledged(), chipset_intack() */
#if MUTANT != INJECTION_UNCHECKED
        drain();
        leaves = on
#endif
    fi;
    /* svm.c:svm_let_in, amid an exit's handling; here, behind the last look, it can do the most harm */
    if
    :: ipi[me] ->
        ipi[me] = false;
#if MUTANT != BREATH_FORGETS
        if /* "if (!p->quiet_until && (hvm_called(p) || __atomic_load_n(&v->posted.on, __ATOMIC_RELAXED)))" */
        :: !quiet && (wake[me] || resched[me] || on) -> ipi[me] = true
        :: else
        fi
#endif
    :: true
    fi;
    /* hvm.c:end_quiet; the timer's interrupt, behind the entry, is as good as an IPI */
    if
#if MUTANT != QUIET_FORGETS
    :: quiet && (wake[me] || resched[me] || on) -> ipi[me] = true
#endif
    :: else
    fi;
    quiet = false;
    /* hvm.h:hvm_before_entry */
    if
    :: leaves -> leaves = false; ipi[me] = true
    :: else
    fi;
    /* svm_enter(), and what the guest does there */
    if
    :: ipi[me] -> goto leave
    :: else
    fi;
    if
    :: goto prepare             /* any exit that is handled at once */
    :: true -> may_post(); goto prepare /* an IPI to itself, an access that raises a line */
    :: resched[me] = true; goto prepare /* PAUSE */
    :: goto halt
    :: goto ask
    :: irr == 0 -> goto end_compute /* else the hardware exits as soon as it can take what waits */
    fi;
end_compute:
    ipi[me] -> goto leave;

halt: /* exit.c:exit_hlt */
    drain();
    if
    :: irr != 0 -> goto prepare
    :: else -> halted = true; block_or_wake(IDLE); goto leave
    fi;

ask: /* ioreq.c:ioreq_access */
    waiting = true;
    request = READY;
    io_waiting[me] = true;
    block(WAIT_IOREQ);

leave:
    quiet = false; /* hvm.c:round "p->quiet_until = 0;" */
    if
    :: own_state == IN_GUEST -> plain_store(RUNNABLE) /* vcpu.c:vcpu_run "v->state = VCPU_RUNNABLE;" */
    :: else
    fi;
    goto round
}

proctype store_buffer(byte me)
{
end:
    do
    :: stores[me]?state
    od
}

/* The device model answers, and rings. */
proctype device_model()
{
end:
    do
    :: atomic { request == READY -> request = RESPONSE; ipi[place] = true }
    od
}

/* When nothing moves any more, nothing is left that somebody would have to look at. */
proctype monitor()
{
    timeout ->
    assert(!ipi[0] && !wake[0]);
#if MOVES
    assert(!ipi[1] && !wake[1]);
#endif
    assert(!on && unseen == 0 && unseen_work == 0)
}

init {
    atomic {
        here[0] = true;
        runnable[0] = true;
        run device_model();
        run store_buffer(0);
        run owner(0, RIVAL);
#if MOVES
        run store_buffer(1);
        run owner(1, 0);
#endif
        run sender(2);
#if SENDERS > 1
        run sender(3);
#endif
#ifdef CONTROL
        run control(4);
#endif
        run monitor()
    }
}

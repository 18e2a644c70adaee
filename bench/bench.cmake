# The network that tests and benches put between devices (bench/net/cluster-net).
add_executable(lingua-netswitch ${CMAKE_SOURCE_DIR}/bench/net/netswitch.c)
target_link_libraries(lingua-netswitch PRIVATE lingua_flags)

# Measures lingua against libllama in one process; `make bench` runs it.
if(LINGUA_BENCH AND TARGET lingua_model AND TARGET test_rig)
  add_executable(lingua-bench-vs-llama ${CMAKE_SOURCE_DIR}/bench/bench_vs_llama.c
    ${CMAKE_SOURCE_DIR}/bench/bench_model.c)
  target_link_libraries(lingua-bench-vs-llama PRIVATE test_rig)
endif()

# Emulated phones (bench/cluster): what holds their speeds, keeps their quotas, uses up their pauses.
foreach(name idler pacer)
  add_executable(lingua-bench-${name} ${CMAKE_SOURCE_DIR}/bench/cluster/${name}.c)
  target_link_libraries(lingua-bench-${name} PRIVATE lingua_flags)
endforeach()
if(TARGET lingua_model)
  add_executable(lingua-bench-steady ${CMAKE_SOURCE_DIR}/bench/cluster/steady.c)
  target_link_libraries(lingua-bench-steady PRIVATE lingua_model)
endif()

# How long plans take, and how near to the best they are proved to be.
add_executable(lingua-bench-plan ${CMAKE_SOURCE_DIR}/bench/plan/bench_plan.c)
target_link_libraries(lingua-bench-plan PRIVATE lingua_plan)

# chiasm_folder(NAME [PUBLIC lib...] [PRIVATE lib...]): the library of the folder this is called in, from its .cpp
# files, and beside it the test program NAME_test from its *_test.cpp files. Files *_cuda.cpp and *_cuda.cu only where
# CUDA was found (cmake/cuda.cmake); they may include its headers, and the folder and its tests then have CHIASM_CUDA
# defined.
#
# chiasm_base is the lowest folder; every other one names the folders below it under PUBLIC.
function(chiasm_folder name)
  cmake_parse_arguments(ARG "" "" "PUBLIC;PRIVATE" ${ARGN})
  file(GLOB sources CONFIGURE_DEPENDS *.cpp)
  file(GLOB tests CONFIGURE_DEPENDS *_test.cpp)
  list(REMOVE_ITEM sources ${tests} "")
  file(GLOB cuda CONFIGURE_DEPENDS *_cuda.cpp *_cuda.cu)
  list(REMOVE_ITEM sources ${cuda} "")
  if(CHIASM_HAS_CUDA)
    list(APPEND sources ${cuda})
  endif()
  add_library(chiasm_${name} STATIC ${sources})
  target_link_libraries(chiasm_${name} PUBLIC chiasm_options ${ARG_PUBLIC} PRIVATE ${ARG_PRIVATE})
  if(CHIASM_HAS_CUDA AND cuda)
    target_compile_definitions(chiasm_${name} PRIVATE CHIASM_CUDA)
    target_link_libraries(chiasm_${name} PRIVATE CUDA::cudart_static ${CMAKE_DL_LIBS})
  endif()
  if(CHIASM_TESTS AND tests)
    chiasm_test(${name}_test SOURCES ${tests} LIBRARIES chiasm_${name} ${ARG_PRIVATE})
    if(CHIASM_HAS_CUDA AND cuda)
      target_compile_definitions(${name}_test PRIVATE CHIASM_CUDA)
      target_link_libraries(${name}_test PRIVATE CUDA::cudart_static)
    endif()
  endif()
endfunction()

# chiasm_test(NAME SOURCES file... LIBRARIES lib...): a GoogleTest program, one ctest entry for the whole program.
# Tests find the source tree through CHIASM_SOURCE_DIR.
function(chiasm_test name)
  cmake_parse_arguments(ARG "" "" "SOURCES;LIBRARIES" ${ARGN})
  find_package(GTest REQUIRED)
  add_executable(${name} ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE ${ARG_LIBRARIES} GTest::gtest GTest::gmock GTest::gtest_main)
  target_compile_definitions(${name} PRIVATE CHIASM_SOURCE_DIR="${PROJECT_SOURCE_DIR}")
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
  add_test(NAME ${name} COMMAND ${name} WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
  set_tests_properties(${name} PROPERTIES TIMEOUT ${CHIASM_TEST_TIMEOUT})
endfunction()
